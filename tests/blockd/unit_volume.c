/* The local driver against a model in memory: random operations on a family of volumes, with
 * reopening, with kill -9 at any moment, with power cuts; and threads that meet in one block. */
enum { VOLUMES = 6, BYTES = 600 << 10, OPS = 400 };

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "common/fault.h"
#include "unit_rig.h"

/* Shared with the child that will be killed. */
struct family {
        struct model v[VOLUMES];
        int done; /* operations acknowledged */
};

static int rig_up(void **state)
{
        *state = rig_new(sizeof(struct family));
        return 0;
}

struct walk {
        struct model *m;
        uint64_t at;
};

static int check_extent(void *arg, uint64_t off, uint64_t len, enum volume_kind kind)
{
        struct walk *w = arg;

        assert_int_equal(off, w->at);
        assert_true(len > 0);
        w->at += len;
        for (uint64_t b = off; kind != VOLUME_DATA && b < off + len; b++)
                assert_int_equal(w->m->bytes[b], 0);
        return 0;
}

static void check_extents(struct rig *r, int i, uint64_t off, uint64_t n)
{
        struct walk w = {.m = &r->f->v[i], .at = off};

        OK(volume_extents(handle(r, i), n, off, check_extent, &w));
        assert_int_equal(w.at, off + n);
}

static void op_write(struct rig *r, int i)
{
        struct model *m = &r->f->v[i];
        static uint8_t buf[100000];
        uint64_t off, n;

        range(m, 100000, &off, &n);
        for (uint64_t b = 0; b < n; b++)
                buf[b] = 1 + random() % 255;
        OK(volume_pwrite(handle(r, i), buf, n, off, random() % 20 ? 0 : VOLUME_FUA));
        memcpy(m->bytes + off, buf, n);
}

static void op_zero(struct rig *r, int i)
{
        struct model *m = &r->f->v[i];
        uint64_t off, n;

        range(m, 100000, &off, &n);
        OK(volume_zero(handle(r, i), n, off, random() % 3 ? 0 : VOLUME_NO_HOLE));
        memset(m->bytes + off, 0, n);
}

/* Whole blocks become zeros, edges stay. */
static void op_trim(struct rig *r, int i)
{
        struct model *m = &r->f->v[i];
        uint64_t off, n, from, to;

        range(m, 100000, &off, &n);
        OK(volume_trim(handle(r, i), n, off, 0));
        from = (off + 4095) / 4096 * 4096;
        to = off + n == m->size ? m->size : (off + n) / 4096 * 4096;
        if (from < to)
                memset(m->bytes + from, 0, to - from);
}

static void op_resize(struct rig *r, int i)
{
        struct model *m = &r->f->v[i];
        uint64_t more = 512 * (random() % 40), size = MIN(m->size + more, (uint64_t)BYTES);

        OK(volume_resize(r->pool, m->id, size, &e));
        memset(m->bytes + m->size, 0, size - m->size);
        m->size = size;
}

static void op_create(struct rig *r, int i)
{
        struct model *m = &r->f->v[i];
        char text[ID_TEXT_SIZE];

        memset(m->bytes, 0, sizeof(m->bytes));
        strcpy(m->id, id_text(text, id_new()));
        m->size = 512 * (1 + random() % 1000);
        OK(volume_create(r->pool, m->id, m->size, &e));
        OK(volume_create(r->pool, m->id, m->size, &e)); /* again is fine */
        m->there = true;
}

static void op_clone(struct rig *r, int i, int from)
{
        struct model *m = &r->f->v[i], *p = &r->f->v[from];
        uint64_t more = random() % 2 ? 512 * (random() % 100) : 0;
        char text[ID_TEXT_SIZE];

        memcpy(m->bytes, p->bytes, sizeof(m->bytes));
        strcpy(m->id, id_text(text, id_new()));
        m->size = MIN(p->size + more, (uint64_t)BYTES);
        memset(m->bytes + p->size, 0, sizeof(m->bytes) - p->size);
        OK(volume_clone(r->pool, m->id, p->id, m->size, &e));
        OK(volume_clone(r->pool, m->id, p->id, m->size, &e));
        m->there = true;
}

static void op_remove(struct rig *r, int i)
{
        r->open[i] = volume_close(r->open[i]);
        OK(volume_remove(r->pool, r->f->v[i].id, &e));
        OK(volume_remove(r->pool, r->f->v[i].id, &e));
        r->f->v[i].there = false;
}

static void one_op(struct rig *r)
{
        int i = random() % VOLUMES, j = random() % VOLUMES;
        uint64_t off, n;

        if (!r->f->v[i].there) {
                if (r->f->v[j].there && random() % 8)
                        op_clone(r, i, j);
                else
                        op_create(r, i);
                return;
        }
        switch (random() % 24) {
        case 0 ... 10:
                op_write(r, i);
                break;
        case 11 ... 13:
                op_zero(r, i);
                break;
        case 14 ... 15:
                op_trim(r, i);
                break;
        case 16:
                op_resize(r, i);
                break;
        case 17 ... 18:
                OK(volume_flush(handle(r, i)));
                break;
        case 19:
                op_remove(r, i);
                break;
        case 20:
                r->open[i] = volume_close(r->open[i]);
                break;
        case 21:
                range(&r->f->v[i], 100000, &off, &n);
                check_extents(r, i, off, n);
                break;
        default:
                compare(r, i);
        }
}

static void compare_all(struct rig *r)
{
        for (int i = 0; i < VOLUMES; i++) {
                if (!r->f->v[i].there)
                        continue;
                compare(r, i);
                check_extents(r, i, 0, r->f->v[i].size);
        }
}

static void no_findings(struct rig *r)
{
        if (is_local())
                assert_int_equal(local_check(r->state, false, stderr, NULL), 0);
}

static void random_ops_with_reopen(void **state)
{
        struct rig *r = *state;

        for (int round = 0; round < times(8, 2); round++) {
                srandom(round);
                for (int i = 0; i < times(OPS, 120); i++)
                        one_op(r);
                compare_all(r);
                pool_down(r);
                no_findings(r);
                pool_up(r);
                compare_all(r);
        }
}

/* Nothing acknowledged is lost when the process dies, flushed or not. */
static void random_ops_with_kill(void **state)
{
        struct rig *r = *state;

        pool_down(r);
        for (int round = 0; round < times(25, 3); round++) {
                int status;
                pid_t pid;

                r->f->done = 0;
                pid = fork();
                assert_true(pid >= 0);
                if (pid == 0) {
                        srandom(1000 + round);
                        pool_up(r);
                        compare_all(r);
                        for (int i = 0; i < 20 + round * 10; i++) {
                                one_op(r);
                                r->f->done++;
                        }
                        kill(getpid(), SIGKILL);
                }
                assert_int_equal(waitpid(pid, &status, 0), pid);
                assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
                assert_int_equal(r->f->done, 20 + round * 10);
                pool_up(r);
                compare_all(r);
                pool_down(r);
                no_findings(r);
        }
}

/* The volumes' folder entries that end in name are called back with their path. */
static void each_file(struct rig *r, const char *prefix, void (*each)(const char *path, void *arg),
                      void *arg)
{
        _cleanup_free_ char *pool = path_printf("%s/pool", r->state);
        DIR *d = opendir(pool);
        struct dirent *de;

        assert_non_null(d);
        while ((de = readdir(d))) {
                _cleanup_free_ char *dir = path_printf("%s/%s", pool, de->d_name);
                DIR *in = de->d_name[0] == '.' ? NULL : opendir(dir);
                struct dirent *f;

                while (in && (f = readdir(in)))
                        if (strncmp(f->d_name, prefix, strlen(prefix)) == 0) {
                                _cleanup_free_ char *path = path_printf("%s/%s", dir, f->d_name);

                                each(path, arg);
                        }
                if (in)
                        closedir(in);
        }
        closedir(d);
}

static void tear_log(const char *path)
{
        uint8_t junk[300];
        int fd = open(path, O_WRONLY | O_APPEND);

        for (size_t i = 0; i < sizeof(junk); i++)
                junk[i] = random();
        assert_true(fd >= 0);
        assert_int_equal(write_full(fd, junk, random() % sizeof(junk)), 0);
        close(fd);
}

/* Those that may be written to have a live map: <run>/map/<volume>.<n>. */
static void tear_logs(struct rig *r, const char *live)
{
        DIR *d = opendir(live);
        struct dirent *de;

        assert_non_null(d);
        while ((de = readdir(d))) {
                _cleanup_free_ char *path = NULL;
                char id[VOLUME_ID_SIZE];
                unsigned n;

                if (sscanf(de->d_name, "%36[^.].%u", id, &n) != 2)
                        continue;
                path = path_printf("%s/pool/%s/map.%u", r->state, id, n);
                tear_log(path);
        }
        closedir(d);
}

/* After a power cut what was flushed is there; what was not is old or new, sector by sector. */
static void power_cut(void **state)
{
        struct rig *r = *state;
        static uint8_t flushed[VOLUMES][BYTES];
        _cleanup_free_ char *live = path_printf("%s/map", r->run);

        for (int round = 0; round < 10; round++) {
                int status;
                pid_t pid;

                srandom(2000 + round);
                for (int i = 0; i < 100; i++)
                        one_op(r);
                pool_down(r);
                for (int i = 0; i < VOLUMES; i++)
                        memcpy(flushed[i], r->f->v[i].bytes, BYTES);
                pid = fork();
                assert_true(pid >= 0);
                if (pid == 0) {
                        pool_up(r);
                        for (int i = 0; i < 60; i++) {
                                int k = random() % VOLUMES;

                                if (r->f->v[k].there)
                                        op_write(r, k);
                        }
                        kill(getpid(), SIGKILL);
                }
                assert_int_equal(waitpid(pid, &status, 0), pid);
                assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
                tear_logs(r, live);
                assert_int_equal(remove_tree(live, NULL), 0);
                pool_up(r);
                for (int i = 0; i < VOLUMES; i++) {
                        struct model *m = &r->f->v[i];
                        static uint8_t got[BYTES];

                        if (!m->there)
                                continue;
                        OK(volume_pread(handle(r, i), got, m->size, 0));
                        for (uint64_t b = 0; b < m->size; b++)
                                if (got[b] != flushed[i][b] && got[b] != m->bytes[b] &&
                                    (flushed[i][b] == m->bytes[b] || got[b] == 0))
                                        fail_msg("volume %d, byte %llu was never that", i,
                                                 (unsigned long long)b);
                        memcpy(m->bytes, got, m->size);
                }
                pool_down(r);
                assert_int_equal(local_check(r->state, true, stderr, NULL), 0);
                pool_up(r);
        }
}

/* What a killed process had acknowledged and its successor flushed is safe from a power cut. */
static void kill_then_flush_then_power_cut(void **state)
{
        struct rig *r = *state;
        _cleanup_free_ char *live = path_printf("%s/map", r->run);

        pool_down(r);
        for (int round = 0; round < 20; round++) {
                for (int flushes = 0; flushes < 2; flushes++) {
                        int status;
                        pid_t pid = fork();

                        assert_true(pid >= 0);
                        if (pid == 0) {
                                srandom(3000 + round);
                                pool_up(r);
                                for (int i = 0; i < 40 && !flushes; i++)
                                        one_op(r);
                                for (int i = 0; i < VOLUMES && flushes; i++)
                                        if (r->f->v[i].there)
                                                OK(volume_flush(handle(r, i)));
                                kill(getpid(), SIGKILL);
                        }
                        assert_int_equal(waitpid(pid, &status, 0), pid);
                        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
                }
                assert_int_equal(remove_tree(live, NULL), 0);
                pool_up(r);
                compare_all(r);
                pool_down(r);
        }
}

static void base_and_clone(struct rig *r)
{
        char text[ID_TEXT_SIZE];

        close_all(r);
        strcpy(r->f->v[1].id, id_text(text, id_new()));
        strcpy(r->f->v[0].id, id_text(text, id_new()));
        OK(volume_create(r->pool, r->f->v[1].id, 1 << 20, &e));
        OK(volume_clone(r->pool, r->f->v[0].id, r->f->v[1].id, 1 << 20, &e));
}

static int child_with_fault(struct rig *r, const char *fault, int (*run)(struct rig *r));

static int write_and_flush(struct rig *r)
{
        OK(volume_pwrite(handle(r, 0), "a", 1, 0, 0));
        return volume_flush(handle(r, 0)) == -EIO ? 1 : 2;
}

static int flush_alone(struct rig *r)
{
        return volume_flush(handle(r, 0)) == -EIO ? 1 : 2;
}

static int write_durably(struct rig *r)
{
        return volume_pwrite(handle(r, 0), "b", 1, 0, VOLUME_FUA) == -EIO ? 1 : 2;
}

/* Killed between the log's write and its sync: the log that the next process finds is synced
 * before anything is called durable, which shows where that sync fails. */
static void a_found_log_is_synced(void **state)
{
        int (*const next[])(struct rig * r) = {flush_alone, write_durably};
        struct rig *r = *state;

        for (size_t i = 0; i < ARRAY_SIZE(next); i++) {
                base_and_clone(r);
                pool_down(r);
                assert_int_equal(child_with_fault(r, "volume.maplog.sync=kill", write_and_flush),
                                 -1);
                assert_int_equal(child_with_fault(r, "volume.maplog.sync=EIO:1", next[i]), 1);
                pool_up(r);
        }
}

/* What the unflushed write after a failed snapshot comes to. */
static int push_fails(struct rig *r)
{
        char text[ID_TEXT_SIZE];

        OK(volume_pwrite(handle(r, 0), "a", 1, 0, 0));
        if (volume_snapshot(r->pool, id_text(text, id_new()), r->f->v[0].id, NULL) != -EIO)
                return 1;
        return volume_pwrite(handle(r, 0), "b", 1, 20480, 0) == 0 ? 2 : 3;
}

/* The metadata of a new layer has its name already when it cannot be synced: it is taken back, and
 * where that fails, too, the next start goes by it and finds what was written below. */
static void a_push_that_failed_loses_nothing(void **state)
{
        struct rig *r = *state;
        struct volume_info info;
        uint8_t x;

        for (int again = 0; again < 2; again++) {
                base_and_clone(r);
                pool_down(r);
                assert_int_equal(child_with_fault(r,
                                                  again ? "volume.meta=EIO" : "volume.meta=EIO:1",
                                                  push_fails),
                                 2);
                pool_up(r);
                OK(volume_stat(r->pool, r->f->v[0].id, &info, &e));
                assert_false(info.failed);
                OK(volume_pread(handle(r, 0), &x, 1, 0));
                assert_int_equal(x, 'a');
                OK(volume_pread(handle(r, 0), &x, 1, 20480));
                assert_int_equal(x, 'b');
        }
}

/* What was the top is frozen and cannot be made durable; the volume goes on above it. */
static int settle_fails(struct rig *r)
{
        char text[ID_TEXT_SIZE];

        OK(volume_pwrite(handle(r, 0), "a", 1, 0, 0));
        OK(volume_flush(handle(r, 0)));
        OK(volume_pwrite(handle(r, 0), "b", 1, 4096, 0));
        if (volume_snapshot(r->pool, id_text(text, id_new()), r->f->v[0].id, NULL) != -ENOSPC)
                return 1;
        OK(volume_pwrite(handle(r, 0), "c", 1, 8192, 0));
        OK(volume_pwrite(handle(r, 0), "d", 1, 4096 + 512, 0));
        if (volume_flush(handle(r, 0)) != -ENOSPC)
                return 2;
        if (volume_clone(r->pool, id_text(text, id_new()), r->f->v[0].id, 1 << 20, NULL) != -ENOSPC)
                return 3;
        return 4;
}

/* Killed then, it loses nothing: in a volume with a map, and in one without. */
static void an_unsettled_layer_is_found(void **state)
{
        const char want[] = {'a', 'b', 'd', 'c'};
        const uint64_t at[] = {0, 4096, 4096 + 512, 8192};
        struct rig *r = *state;
        char id[ID_TEXT_SIZE];

        for (int mapped = 0; mapped < 2; mapped++) {
                base_and_clone(r);
                if (!mapped)
                        OK(volume_create(r->pool, strcpy(r->f->v[0].id, id_text(id, id_new())),
                                         1 << 20, &e));
                pool_down(r);
                assert_int_equal(child_with_fault(r, "volume.settle=ENOSPC", settle_fails), 4);
                pool_up(r);
                for (int again = 0; again < 2; again++) {
                        for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
                                char x = 0;

                                OK(volume_pread(handle(r, 0), &x, 1, at[i]));
                                assert_int_equal(x, want[i]);
                        }
                        OK(volume_flush(handle(r, 0)));
                        OK(volume_snapshot(r->pool, id_text(id, id_new()), r->f->v[0].id, &e));
                        pool_down(r);
                        pool_up(r);
                }
        }
}

enum { THREADS = 4, SECTORS = 8 * 64 };

struct writer {
        struct rig *r;
        int me;
};

/* Every thread owns every THREADS-th sector, so all meet in every block. */
static void *write_sectors(void *arg) /* NULL, or itself when something failed */
{
        struct writer *w = arg;
        uint8_t sector[512];

        for (int s = w->me; s < SECTORS; s += THREADS) {
                memset(sector, 1 + s % 200, sizeof(sector));
                if (volume_pwrite(w->r->open[1], sector, 512, s * 512, 0) < 0)
                        return w;
                if (s % 64 == w->me && volume_flush(w->r->open[1]) < 0)
                        return w;
        }
        return NULL;
}

static void threads_meet_in_a_block(void **state)
{
        struct rig *r = *state;
        uint8_t *got = malloc(SECTORS * 512), fill[4096];
        pthread_t t[THREADS];
        struct writer w[THREADS];

        for (int round = 0; round < times(20, 3); round++) {
                char text[ID_TEXT_SIZE];

                for (int i = 0; i < 4; i++)
                        strcpy(r->f->v[i].id, id_text(text, id_new()));
                OK(volume_create(r->pool, r->f->v[0].id, SECTORS * 512, &e));
                memset(fill, 0xee, sizeof(fill));
                OK(volume_pwrite(handle(r, 0), fill, 4096, 0, 0));
                OK(volume_clone(r->pool, r->f->v[1].id, r->f->v[0].id, SECTORS * 512, &e));
                handle(r, 1);
                for (int i = 0; i < THREADS; i++) {
                        w[i] = (struct writer){.r = r, .me = i};
                        assert_int_equal(pthread_create(&t[i], NULL, write_sectors, &w[i]), 0);
                }
                /* The top layer is frozen while they write. */
                OK(volume_clone(r->pool, r->f->v[2].id, r->f->v[1].id, SECTORS * 512, &e));
                OK(volume_clone(r->pool, r->f->v[3].id, r->f->v[1].id, SECTORS * 512, &e));
                for (int i = 0; i < THREADS; i++) {
                        void *words;

                        pthread_join(t[i], &words);
                        assert_null(words);
                }
                OK(volume_pread(r->open[1], got, SECTORS * 512, 0));
                for (int s = 0; s < SECTORS; s++)
                        for (int b = 0; b < 512; b++)
                                assert_int_equal(got[s * 512 + b], 1 + s % 200);
                close_all(r);
        }
        free(got);
}

static uint64_t used_by(struct rig *r)
{
        uint64_t sum = 0;
        _cleanup_free_ char *pool = path_printf("%s/pool", r->state);
        _cleanup_free_ char *cmd =
                path_printf(is_local() ? "du -s --block-size=1 %s"
                                       : "rados --all -p $(echo $TEST_POOL | sed 's/rbd://; "
                                         "s,/.*,,') ls | grep -c rbd_data; true",
                            pool);
        FILE *p;

        while (!is_local() && volume_pool_work(r->pool) > 0)
                ;
        p = popen(cmd, "r");

        assert_int_equal(fscanf(p, "%lu", &sum), 1);
        pclose(p);
        return sum;
}

static void remove_keeps_bytes_for_clones(void **state)
{
        struct rig *r = *state;
        struct model *v = r->f->v;
        uint8_t mb[1 << 20], got[4096];
        char text[ID_TEXT_SIZE];
        uint64_t empty = used_by(r);
        struct volume_info info;

        memset(mb, 9, sizeof(mb));
        for (int i = 0; i < 3; i++)
                strcpy(v[i].id, id_text(text, id_new()));
        OK(volume_create(r->pool, v[0].id, 8 << 20, &e));
        for (int i = 0; i < 8; i++)
                OK(volume_pwrite(handle(r, 0), mb, sizeof(mb), i << 20, 0));
        OK(volume_clone(r->pool, v[1].id, v[0].id, 8 << 20, &e));
        OK(volume_clone(r->pool, v[2].id, v[1].id, 8 << 20, &e));
        /* Written after the clone: must go with its volume. */
        OK(volume_pwrite(handle(r, 0), mb, sizeof(mb), 0, 0));
        assert_int_equal(volume_remove(r->pool, v[0].id, NULL), -EBUSY);
        close_all(r);
        OK(volume_remove(r->pool, v[0].id, &e));
        assert_int_equal(volume_stat(r->pool, v[0].id, &info, NULL), -ENOENT);
        assert_int_equal(volume_open(r->pool, v[0].id, false, &r->open[0], NULL), -ENOENT);
        if (is_local())
                assert_true(used_by(r) - empty < 9 << 20 && used_by(r) - empty >= 8 << 20);
        OK(volume_remove(r->pool, v[1].id, &e));
        pool_down(r);
        no_findings(r);
        pool_up(r);
        OK(volume_pread(handle(r, 2), got, sizeof(got), 5 << 20));
        assert_memory_equal(got, mb, sizeof(got));
        close_all(r);
        OK(volume_remove(r->pool, v[2].id, &e));
        if (is_local())
                assert_int_equal(used_by(r), empty);
        for (int i = 0; !is_local() && used_by(r) > empty; i++) { /* OSDs trim when they like */
                assert_true(i < 200);
                usleep(200000);
        }
}

static void facts_must_agree(void **state)
{
        struct rig *r = *state;
        char a[ID_TEXT_SIZE], b[ID_TEXT_SIZE];

        id_text(a, id_new());
        id_text(b, id_new());
        OK(volume_create(r->pool, a, 1 << 20, &e));
        assert_int_equal(volume_create(r->pool, a, 2 << 20, NULL), -EEXIST);
        assert_int_equal(volume_create(r->pool, b, 1000, NULL), -EINVAL);
        assert_int_equal(volume_create(r->pool, b, 0, NULL), -EINVAL);
        assert_int_equal(volume_create(r->pool, "../../x", 512, NULL), -EINVAL);
        assert_int_equal(volume_clone(r->pool, b, a, 512, NULL), -EINVAL);
        assert_int_equal(volume_clone(r->pool, a, b, 1 << 20, NULL), -EEXIST);
        assert_int_equal(
                volume_clone(r->pool, b, "00000000-0000-4000-8000-000000000000", 512, NULL),
                -ENOENT);
        assert_int_equal(volume_resize(r->pool, a, 512, NULL), -EINVAL);
        assert_int_equal(volume_resize(r->pool, b, 512, NULL), -ENOENT);
        OK(volume_remove(r->pool, b, &e));
}

static void import_is_immutable(void **state)
{
        struct rig *r = *state;
        _cleanup_free_ char *path = path_printf("%s/raw", r->dir);
        char a[ID_TEXT_SIZE], b[ID_TEXT_SIZE];
        uint8_t got[1024];
        struct volume *v;

        id_text(a, id_new());
        id_text(b, id_new());
        OK(file_replace(path, "hello", 5, 0644, &e));
        OK(volume_import(r->pool, a, path, &e));
        OK(volume_import(r->pool, a, path, &e));
        assert_int_equal(unlink(path), 0);
        OK(volume_import(r->pool, a, path, &e)); /* the name may be gone by now */
        assert_int_equal(volume_import(r->pool, b, path, NULL), -ENOENT);
        assert_int_equal(volume_import(r->pool, b, "/dev/null", NULL), -EINVAL);
        OK(volume_open(r->pool, a, false, &v, &e));
        assert_int_equal(volume_size(v), 512);
        assert_true(volume_readonly(v));
        assert_int_equal(volume_pwrite(v, got, 1, 0, 0), -EROFS);
        OK(volume_pread(v, got, 512, 0));
        assert_memory_equal(got, "hello\0", 7);
        volume_close(v);
        OK(volume_clone(r->pool, b, a, 1024, &e));
        OK(volume_open(r->pool, b, false, &v, &e));
        OK(volume_pwrite(v, "J", 1, 0, 0));
        OK(volume_pread(v, got, 1024, 0));
        assert_memory_equal(got, "Jello\0", 7);
        volume_close(v);
}

/* In a child, because the fault points are read once. */
static int child_with_fault(struct rig *r, const char *fault, int (*run)(struct rig *r))
{
        pid_t pid = fork();
        int status;

        assert_true(pid >= 0);
        if (pid == 0) {
                setenv("STRATOFS_FAULT", fault, 1);
                fault_init();
                pool_up(r);
                _exit(run(r));
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int failed_sync(struct rig *r)
{
        struct volume *v;

        if (volume_open(r->pool, r->f->v[0].id, false, &v, NULL) < 0)
                return 1;
        if (volume_pwrite(v, "x", 1, 0, 0) < 0)
                return 2;
        if (volume_flush(v) != -EIO) /* the one sync that fails */
                return 3;
        if (volume_flush(v) != -EIO) /* the next would succeed, and must not say so */
                return 4;
        if (volume_pwrite(v, "x", 1, 0, 0) != -EIO)
                return 5;
        return 0;
}

static void no_flush_after_a_failed_sync(void **state)
{
        static const char *const faults[] = {"volume.sync=EIO:1", "volume.maplog.sync=EIO:1"};
        struct rig *r = *state;
        struct volume_info info;
        char text[ID_TEXT_SIZE];

        for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
                strcpy(r->f->v[1].id, id_text(text, id_new()));
                strcpy(r->f->v[0].id, id_text(text, id_new()));
                OK(volume_create(r->pool, r->f->v[1].id, 1 << 20, &e));
                OK(volume_clone(r->pool, r->f->v[0].id, r->f->v[1].id, 1 << 20, &e));
                pool_down(r);
                assert_int_equal(child_with_fault(r, faults[i], failed_sync), 0);
                pool_up(r);
                OK(volume_stat(r->pool, r->f->v[0].id, &info, &e));
                assert_true(info.failed); /* also in the next process */
                assert_int_equal(volume_flush(handle(r, 0)), -EIO);
                pool_down(r);
                assert_int_equal(local_check(r->state, false, stderr, NULL), 1);
                assert_int_equal(local_check(r->state, true, stderr, NULL), 0);
                pool_up(r);
                OK(volume_pwrite(handle(r, 0), "y", 1, 5000, 0));
                OK(volume_flush(handle(r, 0)));
                close_all(r);
        }
}

static int full_log(struct rig *r)
{
        struct volume *v;

        if (volume_open(r->pool, r->f->v[0].id, false, &v, NULL) < 0 ||
            volume_pwrite(v, "x", 1, 0, 0) < 0)
                return 1;
        if (volume_flush(v) != -ENOSPC)
                return 2;
        if (volume_flush(v) != 0) /* there is room again */
                return 3;
        volume_close(v);
        return 0;
}

static void a_full_log_is_tried_again(void **state)
{
        struct rig *r = *state;
        char text[ID_TEXT_SIZE], x;

        strcpy(r->f->v[1].id, id_text(text, id_new()));
        strcpy(r->f->v[0].id, id_text(text, id_new()));
        OK(volume_create(r->pool, r->f->v[1].id, 1 << 20, &e));
        OK(volume_clone(r->pool, r->f->v[0].id, r->f->v[1].id, 1 << 20, &e));
        pool_down(r);
        assert_int_equal(child_with_fault(r, "volume.maplog=ENOSPC:1", full_log), 0);
        pool_up(r);
        OK(volume_pread(handle(r, 0), &x, 1, 0));
        assert_int_equal(x, 'x');
}

static void log_size(const char *path, void *arg)
{
        uint64_t *sum = arg;
        struct stat st;

        assert_int_equal(stat(path, &st), 0);
        *sum = MAX(*sum, (uint64_t)st.st_size);
}

/* Many small flushes do not make the log grow for ever, and nothing is lost by shortening it. */
static void logs_are_compacted(void **state)
{
        struct rig *r = *state;
        char text[ID_TEXT_SIZE];
        uint64_t longest = 0, syncs = 0;
        uint8_t x;

        strcpy(r->f->v[1].id, id_text(text, id_new()));
        strcpy(r->f->v[0].id, id_text(text, id_new()));
        OK(volume_create(r->pool, r->f->v[1].id, UINT64_C(1) << 30, &e));
        OK(volume_clone(r->pool, r->f->v[0].id, r->f->v[1].id, UINT64_C(1) << 30, &e));
        /* 64 lines change in each flush: 1.2 MiB of log after 250. */
        for (; syncs < 250; syncs++) {
                for (uint64_t l = 0; l < 64; l++)
                        OK(volume_pwrite(handle(r, 0), "z", 1, (l << 20) + syncs * 4096, 0));
                OK(volume_flush(handle(r, 0)));
        }
        each_file(r, "map.", log_size, &longest);
        assert_true(longest > 0 && longest < 1 << 20);
        pool_down(r);
        no_findings(r);
        pool_up(r);
        for (uint64_t l = 0; l < 64; l++)
                for (uint64_t i = 0; i < syncs; i += 83) {
                        OK(volume_pread(handle(r, 0), &x, 1, (l << 20) + i * 4096));
                        assert_int_equal(x, 'z');
                }
}

/* 64 TiB on tmpfs (ext4 has no file that large): made, cloned, written at its end. */
static void large_volumes_cost_what_is_written(void **state)
{
        struct rig *r = *state;
        const uint64_t size = UINT64_C(64) << 40;
        char dir[] = "/dev/shm/unit-volume.XXXXXX", a[ID_TEXT_SIZE], b[ID_TEXT_SIZE];
        struct volume_pool_config c = {.state = dir, .run = dir};
        struct volume_pool *pool;
        struct volume_info info;
        struct volume *v;
        uint8_t x = 0;

        (void)r;
        assert_non_null(mkdtemp(dir));
        OK(volume_pool_open(&volume_driver_local, &c, &pool, &e));
        id_text(a, id_new());
        id_text(b, id_new());
        OK(volume_create(pool, a, size, &e));
        OK(volume_clone(pool, b, a, size, &e));
        OK(volume_open(pool, b, false, &v, &e));
        OK(volume_pwrite(v, "e", 1, size - 1, VOLUME_FUA));
        OK(volume_zero(v, UINT64_C(4) << 30, 12345, 0));
        OK(volume_pread(v, &x, 1, size - 1));
        assert_int_equal(x, 'e');
        volume_close(v);
        OK(volume_stat(pool, b, &info, &e));
        assert_true(info.used < 1 << 20);
        volume_pool_close(pool);
        remove_tree(dir, NULL);
}

static void deep_chains(void **state)
{
        struct rig *r = *state;
        char ids[60][ID_TEXT_SIZE];
        struct volume *v;
        uint8_t x;

        id_text(ids[0], id_new());
        OK(volume_create(r->pool, ids[0], 1 << 20, &e));
        for (int i = 0; i < 60; i++) {
                if (i > 0) {
                        id_text(ids[i], id_new());
                        OK(volume_clone(r->pool, ids[i], ids[i - 1], 1 << 20, &e));
                }
                OK(volume_open(r->pool, ids[i], false, &v, &e));
                x = i + 1;
                OK(volume_pwrite(v, &x, 1, i * 4096 + 77, 0));
                volume_close(v);
        }
        for (int i = 0; i < 59; i++)
                OK(volume_remove(r->pool, ids[i], &e));
        pool_down(r);
        pool_up(r);
        OK(volume_open(r->pool, ids[59], false, &v, &e));
        for (int i = 0; i < 60; i++) {
                OK(volume_pread(v, &x, 1, i * 4096 + 77));
                assert_int_equal(x, i + 1);
        }
        volume_close(v);
}

#define T(f) cmocka_unit_test_setup_teardown(f, rig_up, rig_down)

int main(void)
{
        const struct CMUnitTest tests[] = {
                T(random_ops_with_reopen),
                T(random_ops_with_kill),
                T(power_cut),
                T(kill_then_flush_then_power_cut),
                T(a_found_log_is_synced),
                T(a_push_that_failed_loses_nothing),
                T(an_unsettled_layer_is_found),
                T(threads_meet_in_a_block),
                T(remove_keeps_bytes_for_clones),
                T(facts_must_agree),
                T(import_is_immutable),
                T(no_flush_after_a_failed_sync),
                T(a_full_log_is_tried_again),
                T(logs_are_compacted),
                T(large_volumes_cost_what_is_written),
                T(deep_chains),
        };
        /* What every driver is to do. */
        const struct CMUnitTest any[] = {
                T(random_ops_with_reopen),  T(random_ops_with_kill),
                T(threads_meet_in_a_block), T(remove_keeps_bytes_for_clones),
                T(facts_must_agree),        T(import_is_immutable),
        };

        if (!is_local())
                return cmocka_run_group_tests(any, NULL, NULL);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
