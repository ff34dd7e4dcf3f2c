/* test-child HELPER: child processes, and what a confined one cannot do.  Each misdeed is tried
 * unconfined first, so that "it failed" means the walls. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "common/child.h"
#include "common/clock.h"
#include "common/fileio.h"

static const char *helper;
static char dir[] = "/tmp/child-XXXXXX";

static char *in_dir(const char *name)
{
        char *p = path_printf("%s/%s", dir, name);

        assert_non_null(p);
        return p;
}

static int setup(void **state _unused_)
{
        strcpy(strrchr(dir, '-'), "-XXXXXX");
        assert_non_null(mkdtemp(dir));
        return chmod(dir, 0755);
}

static int teardown(void **state _unused_)
{
        return remove_tree(dir, NULL);
}

/* The helper's exit status; 1000 + signal when killed. */
static int hostile(const struct confine *walls, struct buf *ret_err, const char *verb,
                   const char *arg, const char *arg2)
{
        const char *const argv[] = {helper, verb, arg, arg2, NULL};
        const struct child c = {.argv = argv, .confine = walls};
        _cleanup_(child_result_done) struct child_result res = {0};
        struct err *e = NULL;

        if (child_run(&c, &res, &e) < 0)
                fail_msg("%s", err_msg(e));
        if (ret_err)
                buf_addstr(ret_err, buf_str(&res.err));
        return WIFEXITED(res.status) ? WEXITSTATUS(res.status) : 1000 + WTERMSIG(res.status);
}

/* Works without walls, fails with them, and for that reason. */
static void assert_walled(const struct confine *walls, const char *why, const char *verb,
                          const char *arg, const char *arg2)
{
        static const struct confine bare;
        _cleanup_buf_ struct buf err = {0};
        int r = hostile(NULL, &err, verb, arg, arg2);

        if (r != 0)
                fail_msg("%s %s does not even work without walls: %d %s", verb, arg ? arg : "", r,
                         buf_str(&err));
        buf_clear(&err);
        r = hostile(walls ? walls : &bare, &err, verb, arg, arg2);
        if (r != 1 || !strstr(buf_str(&err), why))
                fail_msg("%s %s behind walls: %d %s", verb, arg ? arg : "", r, buf_str(&err));
}

static void test_output(void **state _unused_)
{
        const char *const argv[] = {"sh", "-c", "cat; echo out; echo err >&2; exit 3", NULL};
        const struct child c = {.argv = argv};
        _cleanup_(child_result_done) struct child_result res = {0};

        assert_int_equal(child_run(&c, &res, NULL), 0); /* cat: stdin is at its end */
        assert_true(WIFEXITED(res.status));
        assert_int_equal(WEXITSTATUS(res.status), 3);
        assert_string_equal(buf_str(&res.out), "out\n");
        assert_string_equal(buf_str(&res.err), "err\n");
}

static void test_large(void **state _unused_)
{
        const char *const argv[] = {helper, "output", "10000", NULL}; /* 710,000 bytes */
        struct child c = {.argv = argv};
        _cleanup_(child_result_done) struct child_result res = {0};
        _cleanup_err_ struct err *e = NULL;

        assert_int_equal(child_run(&c, &res, NULL), 0);
        assert_int_equal(res.out.len, 710000);
        child_result_done(&res);
        c.max_output = 700000;
        assert_int_equal(child_run(&c, &res, &e), -EFBIG);
        assert_non_null(strstr(err_msg(e), "700000"));
}

static void test_missing(void **state _unused_)
{
        const char *const names[] = {"no-such-program", "/no/such/program", "/etc/passwd"};
        const int codes[] = {-ENOENT, -ENOENT, -EACCES};

        for (int i = 0; i < 3; i++) {
                const char *const argv[] = {names[i], NULL};
                const struct child c = {.argv = argv};
                _cleanup_(child_result_done) struct child_result res = {0};
                _cleanup_err_ struct err *e = NULL;

                assert_int_equal(child_run(&c, &res, &e), codes[i]);
                assert_non_null(strstr(err_msg(e), names[i]));
        }
}

static void test_check(void **state _unused_)
{
        const char *const bad[] = {helper, "exit", "4", NULL}, *const good[] = {"true", NULL};
        struct child c = {.argv = bad};
        _cleanup_err_ struct err *e = NULL;

        assert_int_equal(child_check(&c, &e), -EIO);
        assert_non_null(strstr(err_msg(e), "last ?words"));
        assert_null(strstr(err_msg(e), "first"));
        c.argv = good;
        assert_int_equal(child_check(&c, NULL), 0);
}

static void test_descriptors(void **state _unused_)
{
        int fd = open("/", O_RDONLY); /* without O_CLOEXEC */

        assert_true(fd >= 0);
        assert_int_equal(hostile(NULL, NULL, "fds", NULL, NULL), 1);
        close(fd);
}

/* A group of two, of which the second holds our pipes; nobody may be left. */
static void test_timeout(void **state _unused_)
{
        const char *const argv[] = {helper, "pause", NULL};
        const struct child c = {.argv = argv, .timeout_ms = 300};
        _cleanup_(child_result_done) struct child_result res = {0};
        _cleanup_err_ struct err *e = NULL;
        int64_t start = clock_mono();

        assert_int_equal(child_run(&c, &res, &e), -ETIMEDOUT);
        assert_true(clock_mono() - start >= 300000);
        assert_non_null(strstr(err_msg(e), "0.300 s"));
}

static int count_output(void *arg, const char *p _unused_, size_t n)
{
        size_t *count = arg;

        *count += n;
        return *count > 100000 ? -ECANCELED : 0;
}

static int count_ticks(void *arg)
{
        size_t *count = arg;

        return ++*count == 3 ? -EINTR : 0;
}

static void test_callbacks(void **state _unused_)
{
        const char *const chatty[] = {helper, "output", "1000000", NULL};
        const char *const quiet[] = {helper, "pause", NULL};
        size_t count = 0;
        struct child c = {.argv = chatty, .on_output = count_output, .arg = &count};
        _cleanup_(child_result_done) struct child_result res = {0};

        assert_int_equal(child_run(&c, &res, NULL), -ECANCELED);
        assert_in_range(count, 100001, 1 << 20);
        count = 0;
        c = (struct child){.argv = quiet, .on_tick = count_ticks, .arg = &count};
        assert_int_equal(child_run(&c, &res, NULL), -EINTR);
        assert_int_equal(count, 3);
}

static void test_files(void **state _unused_)
{
        _cleanup_free_ char *in = in_dir("in"), *out = in_dir("out"), *victim = in_dir("victim"),
                            *link = in_dir("link"), *fresh = in_dir("out/fresh"),
                            *planted = in_dir("out/link");
        const char *const reads[] = {in, NULL}, *const writes[] = {out, NULL};
        const struct confine walls = {.read = reads, .write = writes};

        assert_int_equal(file_replace(in, "in", 2, 0644, NULL), 0);
        assert_int_equal(file_replace(victim, "v", 1, 0644, NULL), 0);
        assert_int_equal(mkdir(out, 0755), 0);
        /* what it may */
        assert_int_equal(hostile(&walls, NULL, "read", in, NULL), 0);
        assert_int_equal(hostile(&walls, NULL, "write", fresh, NULL), 0);
        assert_int_equal(hostile(&walls, NULL, "read", fresh, NULL), 0);
        assert_int_equal(hostile(&walls, NULL, "truncate", fresh, NULL), 1);
        assert_int_equal(hostile(&walls, NULL, "list", out, NULL), 0);
        assert_int_equal(hostile(&walls, NULL, "unlink", fresh, NULL), 0);
        assert_int_equal(hostile(&walls, NULL, "thread", NULL, NULL), 0);
        /* what it may not */
        assert_walled(&walls, "Permission denied", "read", "/etc/passwd", NULL);
        if (getuid() == 0)
                assert_walled(&walls, "Permission denied", "read", "/etc/shadow", NULL);
        assert_walled(&walls, "Permission denied", "read", "/proc/self/status", NULL);
        assert_walled(&walls, "Permission denied", "list", dir, NULL);
        assert_walled(&walls, "Permission denied", "write", victim, NULL);
        assert_walled(&walls, "Permission denied", "write", in, NULL);
        assert_walled(&walls, "not permitted", "rdtrunc", in, NULL);
        assert_int_equal(file_replace(in, "in", 2, 0644, NULL), 0);
        assert_walled(&walls, "not permitted", "truncate", victim, NULL);
        assert_walled(&walls, "not permitted", "chmod", victim, NULL);
        assert_walled(&walls, "not permitted", "chmod", in, NULL);
        assert_int_equal(hostile(NULL, NULL, "symlink", link, NULL), 0);
        assert_int_equal(hostile(&walls, NULL, "symlink", planted, NULL), 1);
        assert_int_equal(hostile(&walls, NULL, "unlink", victim, NULL), 1);
        assert_int_equal(access(victim, F_OK), 0);
        assert_int_equal(hostile(NULL, NULL, "unlink", victim, NULL), 0);
}

static void test_sockets(void **state _unused_)
{
        _cleanup_free_ char *path = in_dir("socket");
        _cleanup_close_ int tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        _cleanup_close_ int local = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        struct sockaddr_in in = {.sin_family = AF_INET};
        struct sockaddr_un un = {.sun_family = AF_UNIX};
        const char *const writes[] = {dir, NULL};
        const struct confine walls = {.write = writes};
        socklen_t len = sizeof(in);
        char port[16];

        in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
        assert_int_equal(bind(tcp, (void *)&in, sizeof(in)), 0);
        assert_int_equal(bind(local, (void *)&un, sizeof(un)), 0);
        assert_int_equal(listen(tcp, 5), 0);
        assert_int_equal(listen(local, 5), 0);
        assert_int_equal(getsockname(tcp, (void *)&in, &len), 0);
        snprintf(port, sizeof(port), "%d", ntohs(in.sin_port));
        assert_walled(&walls, "not permitted", "tcp", port, NULL);
        assert_walled(&walls, "not permitted", "unix", path, NULL);
}

static void test_processes(void **state _unused_)
{
        char pid[16];
        pid_t sleeper[2];

        assert_walled(NULL, "not permitted", "fork", "10000", NULL);
        assert_walled(NULL, "not permitted", "clone", NULL, NULL);
        assert_walled(NULL, "not implemented", "clone3", NULL, NULL);
        assert_walled(NULL, "not permitted", "ptrace", NULL, NULL);
        for (int i = 0; i < 2; i++) {
                static const struct confine bare;
                int status;

                sleeper[i] = fork();
                if (sleeper[i] == 0) {
                        pause();
                        _exit(0);
                }
                snprintf(pid, sizeof(pid), "%d", sleeper[i]);
                assert_int_equal(hostile(i ? &bare : NULL, NULL, "kill", pid, NULL), i);
                if (i) /* it still lives: only this ends it */
                        kill(sleeper[i], SIGKILL);
                waitpid(sleeper[i], &status, 0);
                assert_int_equal(WTERMSIG(status), i ? SIGKILL : SIGTERM);
        }
        assert_int_equal(hostile(&(struct confine){0}, NULL, "setsid", NULL, NULL), 1);
        assert_int_equal(hostile(&(struct confine){0}, NULL, "unshare", NULL, NULL), 1);
        if (getuid() == 0)
                assert_walled(NULL, "not permitted", "caps", NULL, NULL);
}

static void test_limits(void **state _unused_)
{
        _cleanup_free_ char *file = in_dir("file");
        const char *const writes[] = {dir, NULL}, *const spin[] = {helper, "spin", NULL};
        const struct confine walls = {
                .write = writes, .max_memory = 256 << 20, .max_file_size = 4 << 20, .max_cpu = 1};
        const struct child c = {.argv = spin, .confine = &walls, .timeout_ms = 20000};
        const struct child late = {
                .argv = spin, .confine = &(struct confine){0}, .timeout_ms = 200};
        _cleanup_(child_result_done) struct child_result res = {0};

        assert_walled(&walls, "allocate memory", "memory", "536870912", NULL);
        assert_int_equal(hostile(&walls, NULL, "memory", "10737418240", NULL), 1);
        assert_walled(&walls, "File too large", "size", file, "5");
        assert_int_equal(hostile(&walls, NULL, "size", file, "4"), 0);
        assert_int_equal(child_run(&c, &res, NULL), 0);
        assert_true(WIFSIGNALED(res.status));
        assert_int_equal(child_run(&late, &res, NULL), -ETIMEDOUT);
}

static void test_bad_walls(void **state _unused_)
{
        const char *const reads[] = {"/no/such/image", NULL}, *const argv[] = {"true", NULL};
        const struct confine walls = {.read = reads};
        const struct child c = {.argv = argv, .confine = &walls};
        _cleanup_err_ struct err *e = NULL;

        assert_int_equal(child_check(&c, &e), -ENOENT);
        assert_non_null(strstr(err_msg(e), "/no/such/image"));
}

/* A kernel without Landlock: refused with words, not run without walls. */
static void test_no_landlock(void **state _unused_)
{
        static const int reasons[] = {ENOSYS, EOPNOTSUPP}; /* not built in; not in lsm= */

        for (size_t i = 0; i < ARRAY_SIZE(reasons); i++) {
                const char *const argv[] = {"true", NULL};
                const struct child c = {.argv = argv, .confine = &(struct confine){0}};
                int status;
                pid_t pid = fork();

                if (pid == 0) {
                        scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
                        struct err *e = NULL;

                        if (seccomp_rule_add(ctx, SCMP_ACT_ERRNO(reasons[i]),
                                             SCMP_SYS(landlock_create_ruleset), 0) < 0 ||
                            seccomp_load(ctx) < 0)
                                _exit(1);
                        if (child_check(&c, &e) != -ENOTSUP || !strstr(err_msg(e), "Landlock"))
                                _exit(2);
                        _exit(child_check(&(struct child){.argv = argv}, NULL) == 0 ? 0 : 3);
                }
                waitpid(pid, &status, 0);
                assert_true(WIFEXITED(status));
                assert_int_equal(WEXITSTATUS(status), 0);
        }
}

/* A plain user gets the same walls. */
static void test_plain_user(void **state)
{
        int status;
        pid_t pid;

        if (getuid() != 0)
                return; /* the tests above were it */
        pid = fork();
        if (pid == 0) {
                static const struct confine bare;

                if (setgid(65534) < 0 || setuid(65534) < 0)
                        _exit(1);
                _exit(hostile(NULL, NULL, "read", "/etc/passwd", NULL) != 0    ? 2
                      : hostile(&bare, NULL, "read", "/etc/passwd", NULL) != 1 ? 3
                      : hostile(NULL, NULL, "fork", "1", NULL) != 0            ? 4
                      : hostile(&bare, NULL, "fork", "10", NULL) != 1          ? 5
                      : hostile(&bare, NULL, "thread", NULL, NULL) != 0        ? 6
                                                                               : 0);
        }
        waitpid(pid, &status, 0);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
}

static void qemu_img(const struct confine *walls, const char *want, const char *const *argv)
{
        const struct child c = {.argv = argv, .confine = walls};
        _cleanup_(child_result_done) struct child_result res = {0};
        struct err *e = NULL;

        if (child_run(&c, &res, &e) < 0)
                fail_msg("%s", err_msg(e));
        if (res.status != 0 || !strstr(buf_str(&res.out), want))
                fail_msg("%s: status %d: %s %s", argv[1], res.status, buf_str(&res.out),
                         buf_str(&res.err));
}

#define ARGV(...) ((const char *const[]){__VA_ARGS__, NULL})

static void test_qemu_img(void **state _unused_)
{
        _cleanup_free_ char *out = in_dir("out"), *in = in_dir("out/in.qcow2"),
                            *made = in_dir("made");
        const char *const reads[] = {in, NULL}, *const folder[] = {out, NULL};
        const char *const file[] = {made, NULL};
        const struct confine creates = {.write = folder, .max_memory = 1ULL << 30};
        const struct confine looks = {.read = reads, .max_memory = 1ULL << 30};
        const struct confine converts = {.read = reads,
                                         .write = file,
                                         .max_memory = 1ULL << 30,
                                         .max_file_size = 1 << 30,
                                         .max_cpu = 60};

        assert_int_equal(mkdir(out, 0755), 0);
        assert_int_equal(file_replace(made, "", 0, 0644, NULL), 0);
        qemu_img(&creates, "Formatting", ARGV("qemu-img", "create", "-f", "qcow2", in, "64M"));
        qemu_img(NULL, "wrote", ARGV("qemu-io", "-c", "write -P 7 1M 4M", in));
        qemu_img(&looks, "\"virtual-size\": 67108864",
                 ARGV("qemu-img", "info", "--output=json", "-f", "qcow2", in));
        qemu_img(&looks, "\"check-errors\": 0",
                 ARGV("qemu-img", "check", "--output=json", "-f", "qcow2", in));
        qemu_img(&converts, "(100.00/100%)",
                 ARGV("qemu-img", "convert", "-p", "-f", "qcow2", "-O", "raw", in, made));
        qemu_img(NULL, "identical",
                 ARGV("qemu-img", "compare", "-f", "qcow2", "-F", "raw", in, made));
        qemu_img(&converts, "",
                 ARGV("qemu-img", "convert", "-c", "-f", "qcow2", "-O", "qcow2", in, made));
        qemu_img(NULL, "identical", ARGV("qemu-img", "compare", in, made));
}

/* The classic: an image whose backing file is somebody's secret. */
static void test_backing(void **state _unused_)
{
        _cleanup_free_ char *trap = in_dir("trap"), *made = in_dir("made"),
                            *secret = in_dir("secret");
        const char *const reads[] = {trap, NULL}, *const writes[] = {made, NULL};
        const char *const *argv =
                ARGV("qemu-img", "convert", "-f", "qcow2", "-O", "raw", trap, made);
        const struct confine walls = {.read = reads, .write = writes};
        struct child c = {.argv = argv};
        _cleanup_err_ struct err *e = NULL;

        assert_int_equal(file_replace(secret, "secret", 6, 0644, NULL), 0);
        assert_int_equal(file_replace(made, "", 0, 0644, NULL), 0);
        qemu_img(NULL, "",
                 ARGV("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret, trap));
        assert_int_equal(child_check(&c, NULL), 0);
        c.confine = &walls;
        assert_int_equal(child_check(&c, &e), -EIO);
        assert_non_null(strstr(err_msg(e), "Permission denied"));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(int argc, char **argv)
{
        const struct CMUnitTest tests[] = {
                TEST(test_output),     TEST(test_large),       TEST(test_missing),
                TEST(test_check),      TEST(test_descriptors), TEST(test_timeout),
                TEST(test_callbacks),  TEST(test_files),       TEST(test_sockets),
                TEST(test_processes),  TEST(test_limits),      TEST(test_bad_walls),
                TEST(test_plain_user), TEST(test_no_landlock), TEST(test_qemu_img),
                TEST(test_backing),
        };

        if (argc != 2)
                return 2;
        helper = argv[1];
        return cmocka_run_group_tests(tests, NULL, NULL);
}
