/* The report for programs.
 *
 * SPDX-License-Identifier: MIT */
#include <string.h>

#include "../json.h"
#include "report.h"

static const char *const figure_names[THR_FIGURE_COUNT] = {
    [THR_RW_PER_SECOND] = "rw_per_second",
    [THR_RO_PER_SECOND] = "ro_per_second",
    [THR_CONFLICT_PERCENT] = "conflict_percent",
    [THR_RW_P50_MS] = "rw_p50_ms",
    [THR_RW_P99_MS] = "rw_p99_ms",
    [THR_RW_MAX_MS] = "rw_max_ms",
    [THR_RO_P50_MS] = "ro_p50_ms",
    [THR_RO_P99_MS] = "ro_p99_ms",
    [THR_RO_MAX_MS] = "ro_max_ms",
    [THR_CPU_US] = "cpu_us_per_transaction",
    [THR_SECONDS] = "seconds",
    [THR_LOG_KB] = "log_kb_per_transaction",
    [THR_KEPT_MIB] = "kept_mib",
};

static void write_settings(struct thr_json *json, const struct thr_report *report)
{
    const struct thr_server_settings *settings = report->settings;

    thr_settings_json_versions(json);
    thr_json_open(json, "settings", '{');
    thr_json_text(json, "workload", settings->workload_name);
    thr_json_integer(json, "rows", thr_server_need_rows(settings) ? (int64_t)settings->rows : 0);
    thr_json_real(json, "seconds", settings->seconds);
    thr_settings_json(json, &settings->common, report->directory);
    thr_json_close(json, '}');
}

static void write_figures(struct thr_json *json, const struct thr_result *result)
{
    for (int i = 0; i < THR_FIGURE_COUNT; i++)
        thr_json_real(json, figure_names[i], result->figure[i]);
}

static void write_result(struct thr_json *json, const struct thr_report *report, uint32_t set, uint32_t engine)
{
    const struct thr_server_settings *settings = report->settings;
    size_t cell = (size_t)set * settings->common.engines.count + engine;

    thr_json_open(json, NULL, '{');
    thr_json_text(json, "engine", settings->common.engines.engine[engine]->name);
    thr_json_integer(json, "writers", settings->sets.set[set].writers);
    thr_json_integer(json, "readers", settings->sets.set[set].readers);
    write_figures(json, &report->summary[cell]);
    thr_json_real(json, "rw_ratio_to_wal", thr_report_ratio(report, set, engine, THR_RW_PER_SECOND));
    thr_json_real(json, "ro_ratio_to_wal", thr_report_ratio(report, set, engine, THR_RO_PER_SECOND));
    thr_json_open(json, "rounds", '[');
    for (uint32_t round = 0; round < report->rounds; round++) {
        thr_json_open(json, NULL, '{');
        write_figures(json, &report->results[round * thr_report_cells(settings) + cell]);
        thr_json_close(json, '}');
    }
    thr_json_close(json, ']');
    if (report->contention != NULL)
        thr_contention_json(json, &report->contention[cell]);
    thr_json_close(json, '}');
}

static void write_check(struct thr_json *json, const struct thr_target *target)
{
    thr_json_open(json, NULL, '{');
    thr_json_text(json, "engine", target->engine->name);
    thr_json_text(json, "integrity_check", target->verdict);
    thr_json_integer(json, "errors", (int64_t)target->errors);
    thr_json_text(json, "first_error", target->first_error);
    thr_json_close(json, '}');
}

void thr_report_json(const struct thr_report *report)
{
    const struct thr_server_settings *settings = report->settings;
    struct thr_json json = {.to = stdout};

    thr_json_open(&json, NULL, '{');
    write_settings(&json, report);
    thr_json_open(&json, "results", '[');
    for (uint32_t set = 0; set < settings->sets.count; set++) {
        for (uint32_t i = 0; i < settings->common.engines.count; i++)
            write_result(&json, report, set, i);
    }
    thr_json_close(&json, ']');
    thr_json_open(&json, "checks", '[');
    for (uint32_t i = 0; i < settings->common.engines.count; i++)
        write_check(&json, &report->targets[i]);
    thr_json_close(&json, ']');
    thr_json_boolean(&json, "ok", thr_report_is_well(report));
    thr_json_close(&json, '}');
}
