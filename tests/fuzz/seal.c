/* SPDX-License-Identifier: MIT */
#include "seal.h"

#include <string.h>
#include <xxhash.h>

#include "log.h"
#include "record.h"

static const size_t HEAD = sizeof(struct thr_segment_head), RECORD = sizeof(struct thr_record_head);

static size_t after_runs(size_t runs)
{
    return (HEAD + runs * sizeof(struct thr_page_run) + 63) & ~(size_t)63;
}

size_t seal_records_at(const uint8_t *segment, size_t bytes)
{
    struct thr_segment_head head;

    if (bytes < HEAD)
        return bytes;
    memcpy(&head, segment, HEAD);
    return after_runs(head.run_count) < bytes ? after_runs(head.run_count) : bytes;
}

size_t seal_record_end(uint8_t *segment, size_t bytes, size_t at)
{
    struct thr_record_head head;

    if (at > bytes || bytes - at < RECORD)
        return 0;
    memcpy(&head, segment + at, RECORD);
    if (head.magic != THR_RECORD_MAGIC)
        return 0;
    if (head.bytes < RECORD || head.bytes > bytes - at || head.bytes % 8 != 0) {
        head.bytes = (bytes - at) & ~(size_t)7;
        memcpy(segment + at, &head, RECORD);
    }
    return at + head.bytes;
}

void seal_segment(uint8_t *segment, size_t bytes, bool keep_order)
{
    struct thr_segment_head head;
    struct thr_record_head record;
    uint64_t seq;
    size_t at;

    if (bytes < HEAD)
        return;
    memcpy(&head, segment, HEAD);
    memcpy(head.magic, "ThrgLog1", 8);
    head.version = 1;
    if (after_runs(head.run_count) > bytes)
        head.run_count = 0;
    head.records_at = after_runs(head.run_count);
    if (head.records_at > bytes)
        return; /* no room for the padding */
    head.run_hash = XXH3_64bits(segment + HEAD, head.run_count * sizeof(struct thr_page_run));
    head.head_hash = XXH3_64bits(&head, offsetof(struct thr_segment_head, head_hash));
    memcpy(segment, &head, HEAD);
    at = head.records_at;
    seq = head.first_seq;
    for (size_t end; (end = seal_record_end(segment, bytes, at)) != 0; at = end, seq++) {
        memcpy(&record, segment + at, RECORD);
        if (keep_order) {
            record.salt = head.salt;
            record.seq = seq;
        }
        record.body_hash = XXH3_64bits(segment + at + RECORD, record.bytes - RECORD);
        record.head_hash = XXH3_64bits(&record, offsetof(struct thr_record_head, head_hash));
        memcpy(segment + at, &record, RECORD);
    }
}

void seal_horizon(uint8_t *at, size_t bytes)
{
    enum { PLACE = 32, HASHED = 24, APART = 512 };

    for (size_t place = 0; place <= APART && place + PLACE <= bytes; place += APART) {
        uint64_t hash = XXH3_64bits(at + place, HASHED);

        memcpy(at + place + HASHED, &hash, sizeof hash);
    }
}
