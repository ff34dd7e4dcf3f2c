/* The store of backups: chunks, manifests, the sweep, and a process that dies anywhere in them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "backend/backup/backup.h"
#include "backend/backup/manifest.h"
#include "common/fault.h"
#include "common/fileio.h"
#include "common/name.h"

enum { CHUNKS = 12, SIZE = CHUNKS * CHUNK_MIN - 1000 };

/* In memory: a process dies here, not the machine. */
static char dir[] = "/dev/shm/test-backup.XXXXXX";
static char id[3][ID_TEXT_SIZE];
static struct backup_service *service;

static int setup(void **state)
{
        strcpy(strrchr(dir, '.') + 1, "XXXXXX");
        if (!mkdtemp(dir))
                return -1;
        for (size_t i = 0; i < ARRAY_SIZE(id); i++)
                id_text(id[i], id_new());
        service = backup_files_new(dir);
        return !service || store_check(dir, true, NULL) < 0 ? -1 : fault_set("");
}

static int teardown(void **state)
{
        service->ops->close(service);
        return remove_tree(dir, NULL);
}

/* Bytes of chunk i of backup b: every other chunk is the same in all of them, the third is zeros.
 */
static void fill(char *buf, size_t n, unsigned b, size_t i)
{
        unsigned seed = i % 2 ? i : 1000 + i * 100 + b;

        for (size_t k = 0; k < n; k++)
                buf[k] = i == 3 ? 0 : k % 64 ? (char)seed : rand_r(&seed);
}

/* What volume_copy() does with bytes that came over NBD. */
static int take(unsigned b, struct err **e)
{
        _cleanup_store_ struct store s = STORE_NONE;
        _cleanup_manifest_ struct manifest m = {};
        _cleanup_free_ char *buf = malloc(CHUNK_MIN);
        int r = store_open(dir, false, &s, e);

        if (r == 0)
                r = manifest_shape(&m, SIZE, e);
        for (size_t i = 0; r == 0 && i < m.nchunks; i++) {
                fill(buf, manifest_chunk_len(&m, i), b, i);
                r = store_put(&s, buf, manifest_chunk_len(&m, i), &m.chunks[i], e);
        }
        if (r == 0)
                r = store_sync(&s, e);
        strcpy(m.id, id[b]);
        strcpy(m.created, "now");
        m.new_bytes = s.new_bytes;
        return r < 0 ? r : manifest_write(&s, &m, e);
}

static unsigned files(const char *folder)
{
        _cleanup_free_ char *path = path_printf("%s/%s", dir, folder);
        DIR *d = opendir(path);
        unsigned n = 0;

        for (struct dirent *x; d && (x = readdir(d));) {
                _cleanup_free_ char *below = path_printf("%s/%s", folder, x->d_name);

                if (x->d_name[0] != '.')
                        n += x->d_type == DT_DIR ? files(below) : 1;
        }
        if (d)
                closedir(d);
        return n;
}

/* Every backup that is listed is whole, byte for byte. */
static void check(bool want0, bool want1)
{
        bool want[] = {want0, want1};
        _cleanup_store_ struct store s = STORE_NONE;
        _cleanup_free_ char *buf = malloc(CHUNK_MIN), *expect = malloc(CHUNK_MIN);

        assert_int_equal(store_open(dir, false, &s, NULL), 0);
        assert_int_equal(files("manifests"), want0 + want1);
        for (unsigned b = 0; b < 2; b++) {
                _cleanup_manifest_ struct manifest m = {};

                assert_int_equal(manifest_read(&s, id[b], &m, NULL), want[b] ? 0 : -ENOENT);
                if (!want[b])
                        continue;
                assert_int_equal(m.nchunks, CHUNKS);
                for (size_t i = 0; i < m.nchunks; i++) {
                        size_t n = manifest_chunk_len(&m, i);

                        fill(expect, n, b, i);
                        assert_int_equal(store_get(&s, &m.chunks[i], buf, n, NULL), 0);
                        assert_memory_equal(buf, expect, n);
                }
                assert_int_equal(service->ops->verify(service, "", id[b], NULL, NULL), 0);
        }
}

static void test_once(void **state)
{
        check(false, false);
        assert_int_equal(take(0, NULL), 0);
        assert_int_equal(files("chunks"), CHUNKS - 1); /* but the zeros */
        assert_int_equal(take(1, NULL), 0);
        assert_int_equal(files("chunks"), CHUNKS - 1 + CHUNKS / 2);
        check(true, true);
        assert_int_equal(take(1, NULL), 0); /* again: the same */
        check(true, true);
        assert_int_equal(service->ops->remove(service, "", id[0], NULL), 0);
        assert_int_equal(service->ops->remove(service, "", id[0], NULL), 0);
        assert_int_equal(service->ops->sweep(service, "", NULL), 0);
        assert_int_equal(files("chunks"), CHUNKS - 1);
        check(false, true);
        assert_int_equal(service->ops->remove(service, "", id[1], NULL), 0);
        assert_int_equal(service->ops->sweep(service, "", NULL), 0);
        assert_int_equal(files("chunks") + files("tmp"), 0);
}

static void test_lock(void **state)
{
        _cleanup_store_ struct store s = STORE_NONE, other = STORE_NONE;

        assert_int_equal(store_open(dir, false, &s, NULL), 0);
        assert_int_equal(store_open(dir, false, &other, NULL), 0);
        assert_int_equal(service->ops->sweep(service, "", NULL), -EBUSY);
        store_done(&other);
        assert_int_equal(service->ops->sweep(service, "", NULL), -EBUSY);
        store_done(&s);
        assert_int_equal(service->ops->sweep(service, "", NULL), 0);
}

/* Runs what in a process with that fault; true: the process was killed by it. */
static bool dies(const char *fault, int (*what)(void))
{
        int status;
        pid_t pid = fork();

        if (pid == 0)
                _exit(fault_set(fault) < 0 ? 2 : what() < 0 ? 1 : 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (WIFSIGNALED(status)) {
                assert_int_equal(WTERMSIG(status), SIGKILL);
                return true;
        }
        assert_int_equal(WEXITSTATUS(status), 0);
        return false;
}

static int take_second(void)
{
        return take(1, NULL);
}

static int sweep(void)
{
        return service->ops->sweep(service, "", NULL);
}

/* Killed at each point in turn, the Nth time for each N that there is. */
static void test_kill(void **state)
{
        static const char *const points[] = {"backup.chunk.write", "backup.chunk.rename",
                                             "backup.manifest.rename", "backup.manifest.sync"};
        unsigned killed = 0;

        assert_int_equal(take(0, NULL), 0);
        for (size_t i = 0; i < ARRAY_SIZE(points); i++)
                for (unsigned n = 1, died = 1; died; n++) {
                        bool whole = streq(points[i], "backup.manifest.sync");
                        char fault[64];

                        snprintf(fault, sizeof(fault), "%s=kill:%u", points[i], n);
                        died = dies(fault, take_second);
                        killed += died;
                        check(true, whole || !died); /* renamed: whole, if not yet durable */
                        assert_int_equal(take_second(), 0);
                        check(true, true);
                        assert_int_equal(service->ops->remove(service, "", id[1], NULL), 0);
                        assert_int_equal(sweep(), 0);
                        assert_int_equal(files("tmp"), 0);
                        assert_int_equal(files("chunks"), CHUNKS - 1);
                        check(true, false);
                }
        assert_int_equal(killed, CHUNKS / 2 * 2 + 2);
        print_message("killed %u times while taking\n", killed);
}

static void test_kill_sweep(void **state)
{
        unsigned killed = 0;

        assert_int_equal(take(0, NULL), 0);
        for (unsigned n = 1;; n++) {
                char fault[64];

                assert_int_equal(take(1, NULL), 0);
                assert_int_equal(service->ops->remove(service, "", id[1], NULL), 0);
                snprintf(fault, sizeof(fault), "backup.sweep=kill:%u", n);
                if (!dies(fault, sweep))
                        break;
                killed++;
                check(true, false);
                assert_int_equal(take(1, NULL), 0); /* with half of its chunks there */
                check(true, true);
                assert_int_equal(sweep(), 0);
                check(true, true);
        }
        assert_int_equal(killed, CHUNKS / 2);
        assert_int_equal(files("chunks"), CHUNKS - 1);
}

/* A full disk and a bad one: an error, and nothing that looks whole. */
static void test_errors(void **state)
{
        static const char *const faults[] = {"backup.chunk.write=ENOSPC:3",
                                             "backup.chunk.rename=EIO:4",
                                             "backup.manifest.rename=ENOSPC"};
        static const int codes[] = {-ENOSPC, -EIO, -ENOSPC};

        assert_int_equal(take(0, NULL), 0);
        for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
                _cleanup_err_ struct err *e = NULL;

                assert_int_equal(fault_set(faults[i]), 0);
                assert_int_equal(take(1, &e), codes[i]);
                assert_non_null(strstr(err_msg(e), dir));
                assert_int_equal(fault_set(""), 0);
                assert_int_equal(files("tmp"), 0);
                check(true, false);
        }
        assert_int_equal(take(1, NULL), 0);
        check(true, true);
}

/* Each byte of a manifest flipped, each length that it could be cut to: never taken for one. */
static void test_manifest(void **state)
{
        _cleanup_store_ struct store s = STORE_NONE;
        struct manifest m_long = {};
        _cleanup_free_ char *path = NULL, *text = NULL;
        size_t n;

        assert_int_equal(take(0, NULL), 0);
        assert_int_equal(take(1, NULL), 0);
        assert_int_equal(store_open(dir, false, &s, NULL), 0);
        path = path_printf("%s/manifests/%s.jsonl", dir, id[0]);
        assert_int_equal(file_read(path, 1 << 20, &text, &n, NULL), 0);
        for (size_t i = 0; i < n; i++) {
                _cleanup_manifest_ struct manifest m = {};

                text[i] ^= 1;
                assert_int_equal(file_replace(path, text, n, 0600, NULL), 0);
                assert_int_equal(manifest_read(&s, id[0], &m, NULL), -EBADMSG);
                text[i] ^= 1;
                assert_int_equal(file_replace(path, text, i, 0600, NULL), 0);
                assert_int_equal(manifest_read(&s, id[0], &m, NULL), -EBADMSG);
        }
        /* A line without an end is not read to its end: there is no memory for it. */
        assert_int_equal(truncate(path, INT64_C(1) << 42), 0);
        assert_int_equal(manifest_read(&s, id[0], &m_long, NULL), -EBADMSG);
        assert_int_equal(file_replace(path, text, n - 1, 0600, NULL), 0);
        store_done(&s);
        /* With a manifest that tells nothing, nothing is freed. */
        assert_int_equal(service->ops->remove(service, "", id[1], NULL), 0);
        assert_int_equal(service->ops->sweep(service, "", NULL), -EBADMSG);
        assert_int_equal(files("chunks"), CHUNKS - 1 + CHUNKS / 2);
        assert_int_equal(file_replace(path, text, n, 0600, NULL), 0);
        check(true, false);
}

/* A chunk that is cut, empty, other or missing is found and named, put aside, and stored again. */
static void test_chunk(void **state)
{
        for (int how = 0; how < 4; how++) {
                _cleanup_store_ struct store s = STORE_NONE;
                _cleanup_manifest_ struct manifest m = {};
                _cleanup_err_ struct err *e = NULL;
                _cleanup_free_ char *path = NULL, *text = NULL;
                char rel[CHUNK_PATH], name[HASH_TEXT];
                size_t n;

                assert_int_equal(take(0, NULL), 0);
                assert_int_equal(store_open(dir, false, &s, NULL), 0);
                assert_int_equal(manifest_read(&s, id[0], &m, NULL), 0);
                path = path_printf("%s/%s", dir, store_chunk_path(rel, &m.chunks[5]));
                assert_int_equal(file_read(path, CHUNK_MAX, &text, &n, NULL), 0);
                text[n / 2] ^= how == 0;
                if (how == 3)
                        assert_int_equal(unlink(path), 0);
                else
                        assert_int_equal(file_replace(path, text,
                                                      how == 0   ? n
                                                      : how == 1 ? n / 2
                                                                 : 0,
                                                      0600, NULL),
                                         0);
                assert_int_equal(service->ops->verify(service, "", id[0], NULL, &e), -EBADMSG);
                assert_non_null(strstr(err_msg(e), hash_text(name, &m.chunks[5])));
                assert_int_equal(take(1, NULL), 0);
                check(true, true);
                store_done(&s);
                assert_int_equal(sweep(), 0);
                assert_int_equal(files("chunks"), CHUNKS - 1 + CHUNKS / 2);
                assert_int_equal(service->ops->remove(service, "", id[1], NULL), 0);
        }
}

static void test_places(void **state)
{
        _cleanup_free_ char *inner = path_printf("%s/chunks", dir);
        _cleanup_free_ char *fresh = path_printf("%s/tmp/fresh", dir);
        _cleanup_free_ char *deep = path_printf("%s/none/fresh", dir);
        _cleanup_free_ char *mark = path_printf("%s/stratofs-backup", dir);

        assert_int_equal(take(0, NULL), 0);
        assert_int_equal(service->ops->check(service, inner, true, NULL), -ENOTEMPTY);
        assert_int_equal(service->ops->check(service, fresh, false, NULL), -ENOENT);
        assert_int_equal(service->ops->check(service, deep, true, NULL), -ENOENT);
        assert_int_equal(service->ops->check(service, fresh, true, NULL), 0);
        assert_int_equal(service->ops->check(service, fresh, false, NULL), 0);
        assert_int_equal(service->ops->remove(service, "", "../../x", NULL), -EINVAL);
        assert_int_equal(file_replace(mark, "{}", 2, 0600, NULL), 0);
        assert_int_equal(service->ops->check(service, "", true, NULL), -EPROTO);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_once, setup, teardown),
                cmocka_unit_test_setup_teardown(test_lock, setup, teardown),
                cmocka_unit_test_setup_teardown(test_kill, setup, teardown),
                cmocka_unit_test_setup_teardown(test_kill_sweep, setup, teardown),
                cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
                cmocka_unit_test_setup_teardown(test_manifest, setup, teardown),
                cmocka_unit_test_setup_teardown(test_chunk, setup, teardown),
                cmocka_unit_test_setup_teardown(test_places, setup, teardown),
        };

        setenv("STRATOFS_FAULT", "", 1);
        fault_init();
        return cmocka_run_group_tests(tests, NULL, NULL);
}
