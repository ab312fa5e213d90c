/* Properties of the version heap, against a model: one thread, so that what must be found is known.
 *
 * SPDX-License-Identifier: MIT */
#include "../support/place.h"
#include "fault.h"
#include "heap.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

enum { PAGES = 30, SLOTS = 6, OWNERS = 3, COMMITS = 3000, PAGE_SIZE = 512 };

static uint64_t seed;
static char dir[PATH_MAX / 2];
static struct thr_shm shm;
static struct thr_heap heap;
static uint32_t slots[SLOTS];
static struct thr_frames owners[OWNERS];
static uint64_t now_seq; /* of the last commit */
static bool hold_back;   /* commits are not visible yet */

static uint32_t below(uint32_t n)
{
    return (uint32_t)(fault_random() % n);
}

static const char *in_dir(const char *name)
{
    static char paths[2][PATH_MAX];
    static unsigned turn;
    char *path = paths[turn++ % 2];

    (void)snprintf(path, PATH_MAX, "%s/%s", dir, name);
    return path;
}

static int setup(void **state)
{
    (void)state;
    seed = fault_environment_seed();
    print_message("replay: THRONG_SEED=%" PRIu64 " build/tests/test-heap\n", seed);
    (void)snprintf(dir, sizeof dir, "%s/throng-heap-XXXXXX", place());
    return mkdtemp(dir) == NULL ? -1 : 0;
}

static int teardown(void **state)
{
    char command[PATH_MAX];

    (void)state;
    (void)snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

static int open_heap(void **state)
{
    (void)state;
    fault_reset();
    fault_seed(seed);
    (void)remove(in_dir("shm"));
    (void)remove(in_dir("heap"));
    memset(&heap, 0, sizeof heap);
    memset(owners, 0, sizeof owners);
    heap.fd = -1;
    now_seq = 1;
    hold_back = false;
    if (thr_shm_create(&shm, in_dir("shm"), 0600) != SQLITE_OK || thr_shm_reserve_pages(&shm, PAGES) != SQLITE_OK ||
        thr_heap_create(&heap, &shm, in_dir("heap"), 0600, PAGE_SIZE) != SQLITE_OK)
        return -1;
    for (int i = 0; i < SLOTS; i++)
        if (thr_shm_slot_acquire(&shm, &slots[i]) != SQLITE_OK)
            return -1;
    return 0;
}

static int close_heap(void **state)
{
    (void)state;
    fault_reset();
    thr_heap_close(&heap);
    thr_shm_close(&shm);
    return 0;
}

static uint64_t snapshot_of(int slot)
{
    return atomic_load(&thr_shm_slot(&shm, slots[slot])->snapshot);
}

static void set_snapshot(int slot, uint64_t seq)
{
    atomic_store(&thr_shm_slot(&shm, slots[slot])->snapshot, seq);
}

/* Commit a new version of the page, as the engine does; its content says which it is. */
static uint32_t publish(struct thr_frames *own, uint32_t pgno, bool is_free)
{
    uint32_t index, older;
    uint64_t content[2] = {pgno, now_seq};

    assert_int_equal(thr_frame_take(&heap, own, &index), SQLITE_OK);
    assert_true(atomic_load(&thr_heap_frame(&heap, index)->seq) == THR_FRAME_PRIVATE);
    memset(thr_heap_page(&heap, index), (int)now_seq, PAGE_SIZE);
    memcpy(thr_heap_page(&heap, index), content, sizeof content);
    if ((older = thr_version_publish(&heap, pgno, is_free, index, now_seq)) != 0)
        thr_frame_retire(&heap, own, older);
    atomic_store(&shm.head->commit_seq, now_seq);
    if (!hold_back)
        atomic_store(&shm.head->visible_seq, now_seq);
    return index;
}

/* The model: for every page the sequences that wrote it, ascending; odd sequences of a page divisible by 3 free it. */
static uint64_t written[PAGES + 1][COMMITS + 2];
static uint32_t written_count[PAGES + 1];

static bool frees(uint32_t pgno, uint64_t seq)
{
    return pgno % 3 == 0 && seq % 2 == 1;
}

static uint64_t model_version(uint32_t pgno, uint64_t snapshot)
{
    for (uint32_t i = written_count[pgno]; i > 0; i--)
        if (written[pgno][i - 1] <= snapshot)
            return written[pgno][i - 1];
    return 0;
}

static void assert_snapshot(uint64_t snapshot)
{
    for (uint32_t pgno = 1; pgno <= PAGES; pgno++) {
        uint64_t wanted = model_version(pgno, snapshot), content[2];
        bool is_free = false;
        uint32_t index = thr_version_find(&heap, pgno, snapshot, &is_free);

        assert_int_equal(index != 0, wanted != 0);
        if (index == 0)
            continue;
        memcpy(content, thr_heap_page(&heap, index), sizeof content);
        assert_int_equal(content[0], pgno);
        assert_int_equal(content[1], wanted);
        assert_int_equal(thr_heap_page(&heap, index)[PAGE_SIZE - 1], (uint8_t)wanted);
        assert_int_equal(is_free, frees(pgno, wanted));
        assert_int_equal(atomic_load(&thr_heap_frame(&heap, index)->seq), wanted);
    }
}

/* Also that the chain leads back the same way. */
static uint32_t chain_length(uint32_t pgno)
{
    uint32_t length = 0, newer = 0;

    for (uint32_t i = atomic_load(thr_shm_newest(&shm, pgno)); i != 0;
         i = atomic_load(&thr_heap_frame(&heap, i)->older)) {
        assert_true(++length < 100000);
        assert_int_equal(atomic_load(&thr_heap_frame(&heap, i)->newer), newer);
        newer = i;
    }
    return length;
}

/* How many versions of the page somebody can still see: one for each distinct version of a snapshot in use, and the
 * newest. */
static uint32_t model_length(uint32_t pgno)
{
    uint64_t seen[SLOTS + 1] = {model_version(pgno, now_seq)};
    uint32_t count = seen[0] != 0;

    for (int i = 0; i < SLOTS; i++) {
        uint64_t version = snapshot_of(i) == 0 ? 0 : model_version(pgno, snapshot_of(i));
        bool known = version == 0;

        for (uint32_t k = 0; k < count; k++)
            known = known || seen[k] == version;
        if (!known)
            seen[count++] = version;
    }
    return count;
}

/* Until nothing more can be. */
static void reclaim_all(void)
{
    for (int i = 0; i < OWNERS; i++)
        thr_frames_settle(&heap, &owners[i]);
    while (thr_frames_gather(&heap, UINT32_MAX, true) > 0)
        ;
    thr_heap_check(&heap, NULL);
}

/* Property (I1, I3): whatever is committed, by whom, and whenever reclamation runs, every snapshot in use finds the
 * version of every page that was newest when it began, with its bytes; and after reclamation no version is left, in the
 * middle of a chain or at its end, that no snapshot sees. */
static void every_snapshot_finds_its_versions(void **state)
{
    (void)state;
    memset(written_count, 0, sizeof written_count);
    for (int commit = 0; commit < COMMITS; commit++) {
        uint32_t pages = 1 + below(5), slot = below(SLOTS);
        struct thr_frames *own = &owners[below(OWNERS)];

        now_seq++;
        for (uint32_t n = 0; n < pages; n++) {
            uint32_t pgno = 1 + below(below(2) == 0 ? PAGES : 4);

            if (written_count[pgno] > 0 && written[pgno][written_count[pgno] - 1] == now_seq)
                continue;
            (void)publish(own, pgno, frees(pgno, now_seq));
            written[pgno][written_count[pgno]++] = now_seq;
            assert_int_equal(thr_version_newest_seq(&heap, pgno), now_seq);
        }
        if (below(3) == 0)
            set_snapshot((int)slot, below(4) == 0 ? 0 : now_seq);
        if (below(20) == 0)
            atomic_store(&shm.head->checkpoint_snapshot, 0);
        if (below(5) == 0)
            thr_frames_settle(&heap, own);
        if (below(100) == 0)
            (void)thr_frames_sweep(&heap, below(50));
        for (int i = 0; i < SLOTS && commit % 3 == 0; i++)
            if (snapshot_of(i) != 0)
                assert_snapshot(snapshot_of(i));
        assert_snapshot(now_seq);
        (void)chain_length(1 + below(PAGES));
    }
    reclaim_all();
    for (uint32_t pgno = 1; pgno <= PAGES; pgno++)
        assert_int_equal(chain_length(pgno), model_length(pgno));
    for (int i = 0; i < SLOTS; i++)
        set_snapshot(i, 0);
    reclaim_all();
    for (uint32_t pgno = 1; pgno <= PAGES; pgno++)
        assert_int_equal(chain_length(pgno), written_count[pgno] > 0);
    assert_snapshot(now_seq);
}

/* Property: a snapshot that stays costs at most one frame for each page, however often the pages are written, also with
 * short snapshots coming and going beside it. */
static void a_long_snapshot_costs_a_frame_a_page(void **state)
{
    uint32_t used = 0;

    (void)state;
    memset(written_count, 0, sizeof written_count);
    for (int commit = 0; commit < COMMITS; commit++) {
        uint32_t pgno = 1 + (uint32_t)commit % PAGES;

        now_seq++;
        (void)publish(&owners[0], pgno, frees(pgno, now_seq));
        thr_frames_settle(&heap, &owners[0]);
        written[pgno][written_count[pgno]++] = now_seq;
        if (commit == 2 * PAGES)
            set_snapshot(0, now_seq);
        if (commit > 2 * PAGES) {
            set_snapshot(1, commit % 7 == 0 ? 0 : now_seq);
            if (commit % 50 == 0)
                assert_snapshot(snapshot_of(0));
        }
        if (commit == 6 * PAGES)
            used = atomic_load(&shm.head->frames_used);
    }
    assert_true(used < 2 * PAGES + PAGES + 64); /* newest, pinned, and what waits to be reclaimed */
    assert_true(atomic_load(&shm.head->frames_used) <= used + 32);
    for (uint32_t pgno = 1; pgno <= PAGES; pgno++)
        assert_true(chain_length(pgno) <= 4);
    set_snapshot(1, 0);
    reclaim_all();
    for (uint32_t pgno = 1; pgno <= PAGES; pgno++)
        assert_int_equal(chain_length(pgno), 2);
    assert_snapshot(snapshot_of(0));
}

/* Property: no two have the same frame, each has a page of its own, and what is given back is used again. */
static void frames_are_taken_once(void **state)
{
    enum { MANY = 5000 };
    static uint32_t taken[MANY];
    uint32_t used;

    (void)state;
    for (uint32_t i = 0; i < MANY; i++) {
        assert_int_equal(thr_frame_take(&heap, &owners[i % OWNERS], &taken[i]), SQLITE_OK);
        assert_true(taken[i] != 0);
        memset(thr_heap_page(&heap, taken[i]), 0xff, PAGE_SIZE);
        memcpy(thr_heap_page(&heap, taken[i]), &i, sizeof i);
    }
    for (uint32_t i = 0; i < MANY; i++) {
        assert_memory_equal(thr_heap_page(&heap, taken[i]), &i, sizeof i);
        assert_true(atomic_load(&thr_heap_frame(&heap, taken[i])->seq) == THR_FRAME_PRIVATE);
    }
    for (uint32_t i = 0; i < MANY; i++)
        thr_frame_give(&heap, &owners[i % OWNERS], taken[i]);
    used = shm.head->next_frame;
    for (uint32_t i = 0; i < MANY; i++)
        assert_int_equal(thr_frame_take(&heap, &owners[i % OWNERS], &taken[i]), SQLITE_OK);
    assert_int_equal(shm.head->next_frame, used);
    for (uint32_t i = 0; i < MANY; i++)
        thr_frame_give(&heap, &owners[i % OWNERS], taken[i]);
    reclaim_all();
    assert_int_equal(atomic_load(&shm.head->frames_used), 0);
}

/* Rewrite all of `count` pages in one transaction, which then is over. */
static void rewrite(struct thr_frames *own, uint32_t count)
{
    now_seq++;
    for (uint32_t pgno = 1; pgno <= count; pgno++)
        (void)publish(own, pgno, false);
    thr_frames_settle(&heap, own);
}

/* Property: what a transaction has superseded and no snapshot sees is used again, whoever needs it: however many connections
 * have made large changes and are idle since, also if a snapshot held their frames back until all were idle. */
static void idle_connections_hold_no_frames(void **state)
{
    enum { MANY = 2000, CONNECTIONS = 40 };

    (void)state;
    for (uint32_t i = 0; i < CONNECTIONS; i++) {
        struct thr_frames own = {.shard = i};

        if (i == CONNECTIONS / 4)
            set_snapshot(0, now_seq);
        if (i == CONNECTIONS / 2)
            set_snapshot(0, 0);
        rewrite(&own, MANY);
        assert_int_equal(own.free.count + own.retired.count, 0);
        if (i < CONNECTIONS / 4)
            assert_true(shm.head->next_frame < 2 * MANY + MANY / 2);
    }
    assert_true(shm.head->next_frame < 3 * MANY + MANY / 2); /* the snapshot kept another version of each */
    reclaim_all();
    assert_int_equal(atomic_load(&shm.head->frames_used), MANY);
}

/* Property: with a limit, rewriting goes on for ever as long as two versions of each page have room, whoever does it; and
 * versions that the file has are free as soon as no snapshot can have found them, without another commit. */
static void a_limit_does_not_wear_out(void **state)
{
    enum { MANY = 900, LIMIT = 2048 };
    uint32_t index, count = 0;

    (void)state;
    heap.frame_limit = LIMIT;
    for (uint32_t i = 0; i < 100; i++) {
        struct thr_frames own = {.shard = below(64)};
        bool reads = below(3) == 0;

        set_snapshot(1, reads ? now_seq : 0); /* ends before the next transaction */
        rewrite(&own, MANY);
        set_snapshot(1, 0);
    }
    for (uint32_t pgno = 1; pgno <= MANY; pgno++)
        assert_true(
            thr_version_unlink_newest(&heap, &owners[1], pgno, atomic_load(thr_shm_newest(&shm, pgno)), UINT64_MAX));
    set_snapshot(2, now_seq); /* may have found the old ones */
    reclaim_all();
    assert_int_equal(atomic_load(&shm.head->frames_used), MANY);
    set_snapshot(2, 0);
    while (thr_frame_take(&heap, &owners[0], &index) == SQLITE_OK)
        count++;
    assert_true(count > LIMIT - 2 * (1u << heap.group_shift));
}

static int64_t disk_blocks(void)
{
    struct stat st;

    assert_int_equal(stat(in_dir("heap"), &st), 0);
    return st.st_blocks / 2;
}

/* Property: after a large transaction the disk space that nobody needs is given back; and what was given back is there again
 * when it is needed, or the disk is full: no store meets a hole. */
static void disk_space_is_given_back(void **state)
{
    enum { MANY = 150000 };
    static uint32_t taken[MANY];
    int64_t most;
    uint32_t index, again = 0;

    (void)state;
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < MANY; i++) {
            assert_int_equal(thr_frame_take(&heap, &owners[0], &taken[i]), SQLITE_OK);
            memset(thr_heap_page(&heap, taken[i]), (int)i, PAGE_SIZE);
        }
        for (uint32_t i = 0; i < MANY; i++)
            assert_int_equal(thr_heap_page(&heap, taken[i])[PAGE_SIZE - 1], (uint8_t)i);
        assert_true(shm.head->next_frame < MANY + MANY / 10);
        most = disk_blocks();
        assert_true(most >= MANY / 2);
        for (uint32_t i = 0; i < MANY; i++)
            if (i % 1000 != 0 || i > MANY / 2) /* the others keep their groups */
                thr_frame_give(&heap, &owners[0], taken[i]);
        thr_frames_settle(&heap, &owners[0]);
        thr_heap_shrink(&heap);
        assert_true(disk_blocks() < most / 2);
        for (uint32_t i = 0; i <= MANY / 2; i += 1000) {
            assert_int_equal(thr_heap_page(&heap, taken[i])[PAGE_SIZE - 1], (uint8_t)i);
            thr_frame_give(&heap, &owners[0], taken[i]);
        }
        thr_frames_settle(&heap, &owners[0]);
        thr_heap_check(&heap, NULL);
    }
    fault_fail_from(THR_OS_ALLOCATE, 1, ENOSPC);
    while (thr_frame_take(&heap, &owners[0], &index) == SQLITE_OK) {
        memset(thr_heap_page(&heap, index), 1, PAGE_SIZE);
        again++;
    }
    assert_true(again < MANY - MANY / 4); /* it was full because of the holes */
}

/* Property: a full disk or a full heap is SQLITE_FULL, and what has been taken stays usable. */
static void a_full_heap_says_so(void **state)
{
    uint32_t index, count = 0, first = 0;
    int rc;

    (void)state;
    fault_fail_from(THR_OS_ALLOCATE, 2, ENOSPC);
    while ((rc = thr_frame_take(&heap, &owners[0], &index)) == SQLITE_OK) {
        first = first == 0 ? index : first;
        memset(thr_heap_page(&heap, index), 1, PAGE_SIZE);
        assert_true(++count < 100000);
    }
    assert_int_equal(rc, SQLITE_FULL);
    assert_int_equal(count, (1u << heap.group_shift) - 1);
    fault_reset();
    heap.frame_limit = 2u << heap.group_shift;
    while ((rc = thr_frame_take(&heap, &owners[0], &index)) == SQLITE_OK)
        count++;
    assert_int_equal(rc, SQLITE_FULL);
    assert_int_equal(count, (2u << heap.group_shift) - 1);
    thr_frame_give(&heap, &owners[0], first);
    assert_int_equal(thr_frame_take(&heap, &owners[0], &index), SQLITE_OK);
    assert_int_equal(index, first);
}

/* Property: more snapshots than reclamation counts one by one are still all respected. */
static void very_many_snapshots_are_respected(void **state)
{
    enum { MANY = 700 };
    static uint32_t more[MANY];

    (void)state;
    memset(written_count, 0, sizeof written_count);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(thr_shm_slot_acquire(&shm, &more[i]), SQLITE_OK);
    for (int i = 0; i < MANY; i++) {
        now_seq++;
        (void)publish(&owners[0], 1, false);
        written[1][written_count[1]++] = now_seq;
        atomic_store(&thr_shm_slot(&shm, more[(i * 37) % MANY])->snapshot, now_seq);
    }
    reclaim_all();
    for (int i = 0; i < MANY; i++)
        assert_snapshot(atomic_load(&thr_shm_slot(&shm, more[i])->snapshot));
    assert_int_equal(chain_length(1), MANY);
    for (int i = 0; i < MANY; i++)
        thr_shm_slot_release(&shm, more[i]);
    reclaim_all();
    assert_int_equal(chain_length(1), 1);
}

/* Property: what is committed and not yet visible takes no version away from snapshots that are still to be taken. */
static void versions_stay_until_the_next_is_visible(void **state)
{
    (void)state;
    memset(written_count, 0, sizeof written_count);
    for (int i = 0; i < 20; i++) {
        now_seq++;
        hold_back = i >= 5;
        (void)publish(&owners[0], 1, false);
        written[1][written_count[1]++] = now_seq;
        reclaim_all();
    }
    assert_int_equal(chain_length(1), 16);
    for (uint64_t seq = now_seq - 15; seq <= now_seq; seq++) {
        atomic_store(&shm.head->visible_seq, seq);
        reclaim_all();
        assert_int_equal(chain_length(1), now_seq - seq + 1);
        set_snapshot(0, seq);
        assert_snapshot(seq);
        set_snapshot(0, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_snapshot_finds_its_versions, open_heap, close_heap),
        cmocka_unit_test_setup_teardown(a_long_snapshot_costs_a_frame_a_page, open_heap, close_heap),
        cmocka_unit_test_setup_teardown(frames_are_taken_once, open_heap, close_heap),
        cmocka_unit_test_setup_teardown(idle_connections_hold_no_frames, open_heap, close_heap),
        cmocka_unit_test_setup_teardown(a_limit_does_not_wear_out, open_heap, close_heap),
        cmocka_unit_test_setup_teardown(disk_space_is_given_back, open_heap, close_heap),
        cmocka_unit_test_setup_teardown(a_full_heap_says_so, open_heap, close_heap),
        cmocka_unit_test_setup_teardown(versions_stay_until_the_next_is_visible, open_heap, close_heap),
        cmocka_unit_test_setup_teardown(very_many_snapshots_are_respected, open_heap, close_heap),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
