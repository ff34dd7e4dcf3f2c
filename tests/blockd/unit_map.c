/* The map and its log: runs, lines, replay, torn tails, damage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "backend/volume/local/map.h"
#include "backend/volume/local/maplog.h"

#define BIG (UINT64_C(64) << 40) /* 64 TiB */

static void runs_agree_with_gets(void **state)
{
        struct map m;
        uint64_t blocks = 70000;
        uint8_t *model = calloc(blocks, 1);

        (void)state;
        assert_int_equal(map_init(&m, blocks, -1, 0), 0);
        srandom(7);
        for (int i = 0; i < 300; i++) {
                uint64_t at = random() % blocks, n = 1 + random() % (i % 3 ? 50 : 20000);
                enum map_state st = random() % 2 ? MAP_DATA : MAP_ZERO;

                n = MIN(n, blocks - at);
                assert_int_equal(map_set(&m, at, n, st), 0);
                memset(model + at, st, n);
        }
        for (uint64_t b = 0; b < blocks;) {
                enum map_state st;
                uint64_t n = map_run(&m, b, blocks - b, &st), want = 0;

                while (b + want < blocks && model[b + want] == model[b])
                        want++;
                assert_int_equal(st, model[b]);
                assert_int_equal(n, want);
                assert_int_equal(map_get(&m, b), model[b]);
                b += n;
        }
        map_done(&m);
        free(model);
}

/* What a packed map says is what the map says that it was made of, line by line, some told twice.
 */
static void packed_agrees(struct map *m, const char *dir)
{
        uint8_t line[MAP_LINE_BYTES], got[MAP_LINE_BYTES];
        uint64_t lines = 0;
        struct map k;

        assert_int_equal(map_gather(&k, m->blocks), 0);
        for (uint64_t i = map_next_line(m, 0); i != UINT64_MAX; i = map_next_line(m, i + 1)) {
                memset(line, 0x55, sizeof(line));
                if (i % 3 == 0)
                        assert_int_equal(map_set_line(&k, i, line), 0);
        }
        for (uint64_t i = map_next_line(m, 0); i != UINT64_MAX; i = map_next_line(m, i + 1)) {
                map_get_line(m, i, line);
                assert_int_equal(map_set_line(&k, i, line), 0);
                lines++;
        }
        assert_int_equal(map_set_line(&k, m->bytes / MAP_LINE_BYTES, line), -EINVAL);
        assert_int_equal(map_pack(&k, dir), 0);
        assert_int_equal(k.live, lines);
        assert_int_equal(k.pack.file != NULL, dir != NULL);
        for (uint64_t i = 0; i != UINT64_MAX; i = map_next_line(m, i + 1)) {
                assert_int_equal(map_next_line(&k, i), map_next_line(m, i));
                map_get_line(m, i, line);
                map_get_line(&k, i, got);
                assert_memory_equal(line, got, sizeof(line));
        }
        for (uint64_t b = 0; b < m->blocks;) {
                const struct map_span span = map_span(b, 1 + b % 7);
                enum map_state st, is;
                uint64_t n = map_run(m, b, m->blocks - b, &st);

                assert_int_equal(map_run(&k, b, m->blocks - b, &is), n);
                assert_int_equal(is, st);
                assert_int_equal(map_get(&k, b), st);
                assert_int_equal(map_run(&k, b, 1 + n / 2, &is), 1 + n / 2 < n ? 1 + n / 2 : n);
                if (span.mask && b + 7 < m->blocks)
                        assert_int_equal(map_span_state(&k, span), map_span_state(m, span));
                b += n;
        }
        map_done(&k);
}

/* So many extents that they go to a file. */
static void large_map(struct map *m)
{
        assert_int_equal(map_grow(m, m->blocks + 100 * 16384), 0);
        for (uint64_t b = m->blocks - 100 * 16384; b < m->blocks; b += 20)
                assert_int_equal(map_set(m, b, 1 + b % 3, b % 7 ? MAP_DATA : MAP_ZERO), 0);
}

static void packed_maps_say_the_same(void **state)
{
        (void)state;
        srandom(11);
        for (int i = 0; i < 24; i++) {
                uint64_t blocks = 200000 + random() % 50000; /* 12 pages */
                struct map m;

                assert_int_equal(map_init(&m, blocks, -1, 0), 0);
                for (int k = 0; k < (i % 4 ? 40 * i : 60000); k++) { /* lists, or bits */
                        uint64_t n = 1 + random() % (i % 3 ? 9 : 3000);
                        uint64_t at = random() % (blocks - n);

                        if (at / 16384 % 5 != 2) /* some pages have nothing */
                                assert_int_equal(map_set(&m, at, i % 4 ? n : 1,
                                                         random() % 2 ? MAP_DATA : MAP_ZERO),
                                                 0);
                }
                packed_agrees(&m, NULL);
                if (i % 4 == 0 && i < 12) {
                        const char *tmp = getenv("TMPDIR");

                        large_map(&m);
                        packed_agrees(&m, tmp ? tmp : "/tmp");
                }
                map_done(&m);
        }
}

static void large_costs_nothing(void **state)
{
        enum map_state st;
        struct map m;

        (void)state;
        assert_int_equal(map_init(&m, BIG / MAP_BLOCK, -1, 0), 0);
        assert_int_equal(map_run(&m, 0, BIG / MAP_BLOCK, &st), BIG / MAP_BLOCK);
        assert_int_equal(st, MAP_HOLE);
        assert_int_equal(map_set(&m, BIG / MAP_BLOCK - 1, 1, MAP_DATA), 0);
        assert_int_equal(map_run(&m, 0, BIG / MAP_BLOCK, &st), BIG / MAP_BLOCK - 1);
        assert_int_equal(m.live, 1);
        map_done(&m);
}

static void growing_keeps_content(void **state)
{
        enum map_state st;
        struct map m;

        (void)state;
        assert_int_equal(map_init(&m, 100, -1, 0), 0);
        assert_int_equal(map_set(&m, 99, 1, MAP_ZERO), 0);
        assert_int_equal(map_grow(&m, 1 << 20), 0);
        assert_int_equal(map_get(&m, 99), MAP_ZERO);
        assert_int_equal(map_run(&m, 100, 1 << 20, &st), 1 << 20);
        assert_int_equal(map_set(&m, (1 << 20) - 1, 1, MAP_DATA), 0);
        map_done(&m);
}

static void dirty_is_given_once(void **state)
{
        uint64_t *lines;
        uint8_t *bytes;
        struct map m;
        size_t n;

        (void)state;
        assert_int_equal(map_init(&m, 100000, -1, 0), 0);
        assert_int_equal(map_set(&m, 0, MAP_LINE_BLOCKS * 3, MAP_DATA), 0);
        assert_int_equal(map_take_dirty(&m, &lines, &bytes, &n), 0);
        assert_int_equal(n, 3);
        assert_int_equal(bytes[0], 0x55);
        free(lines);
        free(bytes);
        /* What does not change is not dirty. */
        assert_int_equal(map_set(&m, 5, 100, MAP_DATA), 0);
        assert_int_equal(map_take_dirty(&m, &lines, &bytes, &n), 0);
        assert_int_equal(n, 0);
        map_done(&m);
}

struct bytes {
        uint8_t *p;
        size_t n;
};

static ssize_t bytes_read(void *arg, void *p, size_t n, uint64_t off)
{
        struct bytes *b = arg;

        if (off >= b->n)
                return 0;
        n = MIN(n, b->n - off);
        memcpy(p, b->p + off, n);
        return n;
}

static const struct maplog_id id = {.volume.bytes = {1, 2, 3}, .layer = 4};

/* A log of `groups` groups; ends[i] is where group i+1 ends.  Group g sets line g to all data. */
static struct bytes make_log(int groups, size_t *ends)
{
        struct bytes b = {.p = malloc(1 << 20), .n = MAPLOG_HEADER};
        uint8_t line[MAP_LINE_BYTES * 2];

        memset(line, 0x55, sizeof(line));
        maplog_header(b.p, &id);
        for (int g = 1; g <= groups; g++) {
                uint64_t lines[] = {g, g + 100};

                /* Two batches a group. */
                b.n += maplog_batch(b.p + b.n, g, false, lines, line, 1);
                b.n += maplog_batch(b.p + b.n, g, true, lines + 1, line, 1);
                ends[g] = b.n;
        }
        ends[0] = MAPLOG_HEADER;
        return b;
}

static int replay(struct bytes *b, struct map *m, struct maplog_end *end)
{
        const struct maplog_source src = {.read = bytes_read, .arg = b};

        assert_int_equal(map_init(m, 1000 * MAP_LINE_BLOCKS, -1, 0), 0);
        return maplog_replay(&src, &id, m, end, NULL);
}

static void torn_tails_are_dropped(void **state)
{
        size_t ends[6];
        struct bytes whole = make_log(5, ends);

        (void)state;
        /* Cut anywhere in the last group, and with the tail overwritten by zeros. */
        for (size_t cut = ends[4]; cut <= whole.n; cut++) {
                for (int zeros = 0; zeros < 2; zeros++) {
                        struct bytes b = {.p = malloc(whole.n), .n = zeros ? whole.n : cut};
                        struct maplog_end end;
                        struct map m;

                        memcpy(b.p, whole.p, whole.n);
                        memset(b.p + cut, 0, whole.n - cut);
                        assert_int_equal(replay(&b, &m, &end), 0);
                        for (int g = 1; g <= 4; g++)
                                assert_int_equal(map_get(&m, g * MAP_LINE_BLOCKS), MAP_DATA);
                        assert_true(end.end >= ends[4] && end.end <= whole.n);
                        assert_int_equal(end.torn, end.end < b.n);
                        assert_int_equal(end.next, cut == whole.n ? 6 : 5);
                        map_done(&m);
                        free(b.p);
                }
        }
        free(whole.p);
}

static void a_log_goes_on_after_a_torn_tail(void **state)
{
        uint8_t line[MAP_LINE_BYTES];
        struct maplog_end end;
        size_t ends[4];
        struct bytes b = make_log(3, ends);
        uint64_t where = 500;
        struct map m;

        (void)state;
        memset(line, 0xaa, sizeof(line));
        /* Half of group 3 stays. */
        b.n = ends[2] + MAPLOG_BATCH + MAPLOG_RECORD + 5;
        assert_int_equal(replay(&b, &m, &end), 0);
        assert_int_equal(end.next, 3);
        map_done(&m);
        b.n = end.end + maplog_batch(b.p + end.end, end.next, true, &where, line, 1);
        assert_int_equal(replay(&b, &m, &end), 0);
        assert_false(end.torn);
        assert_int_equal(end.next, 4);
        assert_int_equal(map_get(&m, 500 * MAP_LINE_BLOCKS), MAP_ZERO);
        map_done(&m);
        free(b.p);
}

static void damage_is_not_a_torn_tail(void **state)
{
        size_t ends[6];
        struct bytes b = make_log(5, ends);

        (void)state;
        /* Any bit in an early group: later groups were synced after it, so it was good once. */
        for (size_t at = ends[1]; at < ends[3]; at++) {
                struct maplog_end end;
                struct map m;

                b.p[at] ^= 4;
                assert_int_equal(replay(&b, &m, &end), -EUCLEAN);
                b.p[at] ^= 4;
                map_done(&m);
        }
        free(b.p);
}

static void a_log_of_another_layer_is_refused(void **state)
{
        const struct maplog_id other = {.volume.bytes = {1, 2, 3}, .layer = 5};
        struct maplog_end end;
        size_t ends[2];
        struct bytes b = make_log(1, ends);
        struct map m;

        (void)state;
        maplog_header(b.p, &other);
        assert_int_equal(replay(&b, &m, &end), -EUCLEAN);
        map_done(&m);
        free(b.p);
}

static void records_that_make_no_sense_are_refused(void **state)
{
        uint8_t line[MAP_LINE_BYTES];
        uint64_t lines[] = {1, UINT64_MAX, 1 << 30};

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
                struct bytes b = {.p = malloc(4096), .n = MAPLOG_HEADER};
                struct maplog_end end;
                struct map m;

                memset(line, i == 0 ? 0xff : 0x55, sizeof(line)); /* state 3, or far away */
                maplog_header(b.p, &id);
                b.n += maplog_batch(b.p + b.n, 1, true, &lines[i], line, 1);
                assert_int_equal(replay(&b, &m, &end), -EUCLEAN);
                map_done(&m);
                free(b.p);
        }
}

static void checksum_is_castagnoli(void **state)
{
        (void)state;
        assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
}

static void spans_agree_with_runs(void **state)
{
        struct map m;

        (void)state;
        srandom(11);
        assert_int_equal(map_init(&m, 40000, -1, 0), 0);
        for (int i = 0; i < 300; i++)
                assert_int_equal(map_set(&m, random() % 20000, 1 + random() % 60, 1 + random() % 2),
                                 0);
        for (int i = 0; i < 20000; i++) {
                uint64_t block = random() % 39000, n = 1 + random() % 40;
                struct map_span span = map_span(block, n);
                enum map_state run;
                uint64_t k = map_run(&m, block, n, &run);

                if (span.mask == 0)
                        assert_true(block / 32 != (block + n - 1) / 32);
                else
                        assert_int_equal(map_span_state(&m, span), k == n ? run : MAP_MIXED);
                for (uint64_t b = 0; b < k; b++)
                        assert_int_equal(map_get(&m, block + b), run);
                assert_true(k == n || map_get(&m, block + k) != run);
        }
        map_done(&m);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(runs_agree_with_gets),
                cmocka_unit_test(packed_maps_say_the_same),
                cmocka_unit_test(large_costs_nothing),
                cmocka_unit_test(growing_keeps_content),
                cmocka_unit_test(dirty_is_given_once),
                cmocka_unit_test(torn_tails_are_dropped),
                cmocka_unit_test(a_log_goes_on_after_a_torn_tail),
                cmocka_unit_test(damage_is_not_a_torn_tail),
                cmocka_unit_test(a_log_of_another_layer_is_refused),
                cmocka_unit_test(records_that_make_no_sense_are_refused),
                cmocka_unit_test(checksum_is_castagnoli),
                cmocka_unit_test(spans_agree_with_runs),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
