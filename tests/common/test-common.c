/* The small helpers: sizes, names, errors, text, fault points, removing. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/fileio.h"
#include "common/log.h"
#include "common/name.h"
#include "common/size.h"

static void test_size_good(void **state _unused_)
{
        static const struct {
                const char *text;
                uint64_t want;
        } cases[] = {
                {"0", 0},
                {"1", 1},
                {"512", 512},
                {"007", 7},
                {"1K", 1024},
                {"10g", 10ULL << 30},
                {"3T", 3ULL << 40},
                {"2P", 2ULL << 50},
                {"8191P", 8191ULL << 50},
                {"9223372036854775807", INT64_MAX},
                {"8796093022207M", 8796093022207ULL << 20},
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                uint64_t v = 1;
                _cleanup_err_ struct err *e = NULL;

                if (size_parse(cases[i].text, strlen(cases[i].text), &v, &e) < 0)
                        fail_msg("'%s': %s", cases[i].text, err_msg(e));
                assert_int_equal(v, cases[i].want);
        }
}

static void test_size_bad(void **state _unused_)
{
        static const struct {
                const char *text;
                size_t at; /* of the caret */
        } cases[] = {
                {"", 0},
                {"G", 0},
                {"-1", 0},
                {"1.5T", 1},
                {"1KB", 1},
                {"1X", 1},
                {"1 G", 1},
                {" 1", 0},
                {"1\n", 1},
                {"0x10", 1},
                {"8192P", 0},
                {"max", 0},
                {"9223372036854775808", 0},
                {"99999999999999999999999", 0},
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                uint64_t v = 1;
                _cleanup_err_ struct err *e = NULL;

                if (size_parse(cases[i].text, strlen(cases[i].text), &v, &e) != -EINVAL)
                        fail_msg("'%s' was taken", cases[i].text);
                assert_int_equal(v, 1);
                assert_int_equal(e->code, -EINVAL);
                assert_string_equal(e->input, cases[i].text);
                assert_int_equal(e->at, cases[i].at);
        }
}

static void test_size_human(void **state _unused_)
{
        char text[SIZE_TEXT_MAX];

        assert_string_equal(size_human(text, 0), "0");
        assert_string_equal(size_human(text, 1023), "1023");
        assert_string_equal(size_human(text, 1024), "1K");
        assert_string_equal(size_human(text, 1536ULL << 20), "1.5G");
        assert_string_equal(size_human(text, 10ULL << 30), "10G");
        assert_string_equal(size_human(text, UINT64_MAX), "15.9E");
}

static void assert_name(const char *name, int code, size_t at)
{
        _cleanup_err_ struct err *e = NULL;

        assert_int_equal(name_check(name, strlen(name), &e), code);
        if (code < 0)
                assert_int_equal(e->at, at);
        assert_int_equal(name_valid(name), code == 0);
}

static void test_name(void **state _unused_)
{
        char longest[NAME_SIZE + 1];

        assert_name("web", 0, 0);
        assert_name("0", 0, 0);
        assert_name("Debian-12.7_x", 0, 0);
        assert_name("", -EINVAL, 0);
        assert_name(".hidden", -EINVAL, 0);
        assert_name("-x", -EINVAL, 0);
        assert_name("_x", -EINVAL, 0);
        assert_name("a/b", -EINVAL, 1);
        assert_name("a b", -EINVAL, 1);
        assert_name("ab\n", -EINVAL, 2);
        assert_name("caf\xc3\xa9", -EINVAL, 3);
        assert_int_equal(name_check("a\0b", 3, NULL), -EINVAL);
        memset(longest, 'x', sizeof(longest));
        longest[NAME_SIZE - 1] = '\0';
        assert_name(longest, 0, 0);
        longest[NAME_SIZE - 1] = 'x';
        longest[NAME_SIZE] = '\0';
        assert_name(longest, -ENAMETOOLONG, NAME_SIZE - 1);
}

static void test_id(void **state _unused_)
{
        char text[ID_TEXT_SIZE];
        sd_id128_t a = id_new(), b;

        assert_int_equal(strlen(id_text(text, a)), 36);
        assert_int_equal(id_parse(text, &b), 0);
        assert_true(sd_id128_equal(a, b));
        assert_false(sd_id128_equal(a, id_new()));
        assert_int_equal(id_parse("", &b), -EINVAL);
        text[35] = 'g';
        assert_int_equal(id_parse(text, &b), -EINVAL);
        /* 32 digits without dashes are no id of ours */
        assert_int_equal(id_parse("0123456789abcdef0123456789abcdef", &b), -EINVAL);
}

static void test_err(void **state _unused_)
{
        struct err *e = NULL, *moved = NULL;
        char big[3000];

        assert_int_equal(err_set(&e, -EBUSY, "volume '%s' is in use", "v"), -EBUSY);
        assert_string_equal(err_msg(e), "volume 'v' is in use");
        assert_int_equal(err_prepend(&e, -EBUSY, "start '%s'", "web"), -EBUSY);
        assert_string_equal(err_msg(e), "start 'web': volume 'v' is in use");
        assert_int_equal(err_hint(&e, -EBUSY, "detach"), -EBUSY);
        assert_int_equal(err_hint(&e, -EBUSY, "detach it"), -EBUSY);
        assert_int_equal(err_hint(NULL, -EBUSY, "nobody hears it"), -EBUSY);
        assert_string_equal(e->hint, "detach it");
        assert_int_equal(err_move(&moved, TAKE_PTR(e)), -EBUSY);
        assert_string_equal(moved->hint, "detach it");
        moved = err_free(moved);
        assert_null(moved);

        assert_int_equal(err_errno(&e, -ENOENT, "open '%s'", "x"), -ENOENT);
        assert_string_equal(err_msg(e), "open 'x': No such file or directory");
        e = err_free(e);
        assert_int_equal(err_prepend(&e, -EIO, "read"), -EIO);
        assert_string_equal(err_msg(e), "read: Input/output error");
        e = err_free(e);

        memset(big, 'b', sizeof(big));
        assert_int_equal(err_at(&e, -EINVAL, big, sizeof(big), 9999, 1, "bad"), -EINVAL);
        assert_int_equal(strlen(e->input), 1024);
        assert_in_range(e->at, 0, sizeof(big));
        e = err_free(e);

        /* who wants no words */
        assert_int_equal(err_set(NULL, -EIO, "x"), -EIO);
        assert_int_equal(err_errno(NULL, -EIO, "x"), -EIO);
        assert_int_equal(err_prepend(NULL, -EIO, "x"), -EIO);
        assert_int_equal(err_at(NULL, -EIO, "x", 1, 0, 1, "x"), -EIO);
        assert_int_equal(err_move(NULL, NULL), 0);
        assert_non_null(err_msg(NULL));
}

static void test_text(void **state _unused_)
{
        static const struct {
                const char *text;
                bool line, lines; /* clean as one line, as many */
        } cases[] = {
                {"", true, true},
                {"plain text", true, true},
                {"tab\there", true, true},
                {"two\nlines", false, true},
                {"cr\r", false, false},
                {"\033[31m", false, false},
                {"\x7f", false, false},
                {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", true, true},
                {"\xc3", false, false},             /* cut */
                {"\xc0\xaf", false, false},         /* overlong */
                {"\xe0\x80\xaf", false, false},     /* overlong */
                {"\xf0\x80\x80\xaf", false, false}, /* overlong */
                {"\xed\xa0\x80", false, false},     /* surrogate */
                {"\xf4\x90\x80\x80", false, false}, /* past U+10FFFF */
                {"\xff", false, false},
                {"\x80", false, false},
                {"\xc2\x85", false, false}, /* C1: next line */
                {"\xc2\x9b"
                 "31m",
                 false, false},           /* C1: what a terminal takes for ESC [ */
                {"\xc2\xa0", true, true}, /* the first after C1 */
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                size_t n = strlen(cases[i].text);

                if (text_clean(cases[i].text, n, false) != cases[i].line ||
                    text_clean(cases[i].text, n, true) != cases[i].lines)
                        fail_msg("case %zu", i);
        }
        assert_false(text_clean("a\0b", 3, true));
}

/* In a child: the faults of a process are read once. */
static int with_faults(const char *env, int (*f)(void))
{
        int status;
        pid_t pid = fork();

        if (pid == 0) {
                setenv("STRATOFS_FAULT", env, 1);
                fault_init();
                _exit(f());
        }
        waitpid(pid, &status, 0);
        return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static int none(void)
{
        return FAULT("a") == 0 ? 0 : 1;
}

static int changed(void)
{
        int64_t before = clock_mono();

        return FAULT("a") != -EIO                         ? 1
               : fault_set("a=EDQUOT:2,b=ENOTSUP") != 0   ? 2
               : fault_set("a=EWHAT") != -EINVAL          ? 3
               : FAULT("a") != 0 || FAULT("a") != -EDQUOT ? 4
               : FAULT("b") != -EOPNOTSUPP                ? 5
               : fault_set("a=delay:20:1,a=EIO:3") != 0   ? 6
               : FAULT("a") != 0                          ? 7
               : clock_mono() - before < 20 * 1000        ? 8
               : FAULT("a") != 0                          ? 9
               : FAULT("a") != -EIO                       ? 10
               : fault_set("") != 0                       ? 11
               : FAULT("a") != 0                          ? 12
                                                          : 0;
}

static int second_only(void)
{
        return FAULT("a.b") != 0         ? 1
               : FAULT("a.b") != -ENOSPC ? 2
               : FAULT("a.b") != 0       ? 3
               : FAULT("c") != -EIO      ? 4
               : FAULT("c") != -EIO      ? 5
               : FAULT("d") != 0         ? 6
                                         : 0;
}

static int dies(void)
{
        return FAULT("x") == 0 ? 1 : 2;
}

static char fault_file[64];

/* Points in a file count as soon as they are there, and as long. */
static int from_file(void)
{
        _cleanup_free_ char *trace = path_printf("%s.trace", fault_file), *text = NULL;
        int r = FAULT("a")                                                                ? 1
                : file_replace(fault_file, "a=EIO:2\n", 8, 0600, NULL) < 0                ? 2
                : FAULT("a") != 0 || FAULT_OF("a", "b") != 0 || FAULT("a") != -EIO        ? 3
                : file_replace(fault_file, "trace,a.b=ENOSPC", 16, 0600, NULL) < 0        ? 4
                : FAULT("a") != 0 || FAULT_OF("a", "b") != -ENOSPC                        ? 5
                : file_read(trace, 100, &text, NULL, NULL) < 0 || !strstr(text, " a.b\n") ? 6
                : unlink(fault_file) < 0 || FAULT_OF("a", "b") != 0                       ? 7
                                                                                          : 0;

        unlink(trace);
        return r;
}

/* Who comes after it meets no point. */
static int dies_once(void)
{
        if (access(fault_file, F_OK) < 0)
                return FAULT("x");
        return FAULT("x") == 0 ? 1 : 2;
}

static void test_fault_file(void **state _unused_)
{
        char at[sizeof(fault_file) + 1];

        snprintf(fault_file, sizeof(fault_file), "/tmp/test-common-fault.%d", getpid());
        snprintf(at, sizeof(at), "@%s", fault_file);
        unlink(fault_file);
        assert_int_equal(with_faults(at, from_file), 0);
        assert_int_equal(file_replace(fault_file, "x=kill", 6, 0600, NULL), 0);
        assert_int_equal(with_faults(at, dies_once), 1000 + SIGKILL);
        assert_int_equal(with_faults(at, dies_once), 0);
        assert_int_equal(file_replace(fault_file, "x=what", 6, 0600, NULL), 0);
        assert_int_equal(with_faults(at, dies_once), 2);
        unlink(fault_file);
}

static void test_fault(void **state _unused_)
{
        static const char *const wrong[] = {"x",        "x=",         "x=EWHAT",
                                            "=EIO",     "x=kill:1,y", "x=delay",
                                            "x=delay:", "x=EIO:0",    "x=EIO:1x"};

        assert_int_equal(FAULT("a"), 0);
        assert_int_equal(fault_set("a=EIO"), -EPERM);
        assert_int_equal(FAULT("a"), 0);
        assert_int_equal(with_faults("", none), 0);
        assert_int_equal(with_faults("a=EIO", changed), 0);
        assert_int_equal(with_faults("a.b=ENOSPC:2,c=EIO", second_only), 0);
        assert_int_equal(with_faults("x=kill", dies), 1000 + SIGKILL);
        assert_int_equal(with_faults("x=kill:2", dies), 1);
        for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
                assert_int_equal(with_faults(wrong[i], none), 2);
}

/* ---- remove_tree() ---- */

enum { VICTIMS = 20, ROUNDS = 200 };

static int make_dir(void **state)
{
        char *dir = path_printf("/tmp/test-common.XXXXXX");

        *state = dir;
        return dir && mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
        int r = remove_tree(*state, NULL);

        free(*state);
        return r;
}

/* Files in dir, which is made. */
static void fill(int at, const char *dir)
{
        char name[64];

        assert_true(mkdirat(at, dir, 0700) == 0 || errno == EEXIST);
        for (unsigned i = 0; i < VICTIMS; i++) {
                _cleanup_close_ int fd = -1;

                snprintf(name, sizeof(name), "%s/%u", dir, i);
                fd = openat(at, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
                assert_true(fd >= 0);
        }
}

static void test_remove_tree(void **state)
{
        _cleanup_free_ char *tree = path_printf("%s/tree", (char *)*state);
        _cleanup_close_ int at = open(*state, O_DIRECTORY | O_CLOEXEC);

        assert_int_equal(remove_tree(tree, NULL), 0);
        fill(at, "kept");
        fill(at, "tree");
        fill(at, "tree/sub");
        assert_int_equal(mkfifoat(at, "tree/fifo", 0600), 0);
        assert_int_equal(symlinkat("../kept", at, "tree/link"), 0);
        assert_int_equal(remove_tree(tree, NULL), 0);
        assert_int_equal(faccessat(at, "tree", F_OK, 0), -1);
        assert_int_equal(faccessat(at, "kept/19", F_OK, 0), 0);
        assert_int_equal(symlinkat("kept", at, "tree"), 0);
        assert_int_equal(remove_tree(tree, NULL), 0);
        assert_int_equal(faccessat(at, "tree", F_OK, AT_SYMLINK_NOFOLLOW), -1);
        assert_int_equal(faccessat(at, "kept/19", F_OK, 0), 0);
}

/* Too deep: an error, and the rest goes. */
static void test_remove_deep(void **state)
{
        _cleanup_free_ char *tree = path_printf("%s/tree", (char *)*state);
        _cleanup_close_ int at = open(*state, O_DIRECTORY | O_CLOEXEC);
        char path[256] = "tree";

        for (unsigned depth = 1; depth <= 65; depth++) {
                assert_int_equal(mkdirat(at, path, 0700), 0);
                strcat(path, "/d");
        }
        fill(at, "tree/files");
        assert_int_equal(remove_tree(tree, NULL), -ENOTEMPTY);
        assert_int_equal(faccessat(at, "tree/files", F_OK, 0), -1);
        assert_int_equal(renameat(at, "tree/d/d", at, "rest"), 0);
        assert_int_equal(remove_tree(tree, NULL), 0);
}

struct swapper {
        const char *a, *b;
        atomic_bool begun, over;
};

static void *swap(void *arg)
{
        struct swapper *s = arg;

        for (; !s->over; s->begun = true)
                renameat2(AT_FDCWD, s->a, AT_FDCWD, s->b, RENAME_EXCHANGE);
        return NULL;
}

/* Its owner swaps a folder in it with a link that leads elsewhere, all the time. */
static void test_remove_while_swapped(void **state)
{
        _cleanup_free_ char *tree = path_printf("%s/tree", (char *)*state);
        _cleanup_free_ char *a = path_printf("%s/a", tree), *b = path_printf("%s/b", tree);
        _cleanup_close_ int at = open(*state, O_DIRECTORY | O_CLOEXEC);
        char name[32];

        fill(at, "victim");
        for (unsigned round = 0; round < ROUNDS; round++) {
                struct swapper s = {.a = a, .b = b};
                pthread_t t;

                assert_true(mkdirat(at, "tree", 0700) == 0 || errno == EEXIST);
                fill(at, "tree/a");
                assert_int_equal(symlinkat("../victim", at, "tree/b"), 0);
                assert_int_equal(pthread_create(&t, NULL, swap, &s), 0);
                while (!s.begun) {
                }
                remove_tree(tree, NULL); /* may fail */
                s.over = true;
                pthread_join(t, NULL);
                assert_int_equal(remove_tree(tree, NULL), 0);
                for (unsigned i = 0; i < VICTIMS; i++) {
                        snprintf(name, sizeof(name), "victim/%u", i);
                        assert_int_equal(faccessat(at, name, F_OK, 0), 0);
                }
        }
}

/* What is said again and again does not fill the disk, nor keep anything else from being said. */
static void test_log_flood(void **state)
{
        _cleanup_free_ char *path = path_printf("%s/log", (char *)*state);
        _cleanup_close_ int saved = dup(STDERR_FILENO);
        _cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        _cleanup_free_ char *text = NULL;
        size_t n, floods = 0;

        assert_true(saved >= 0 && fd >= 0 && dup2(fd, STDERR_FILENO) >= 0);
        for (unsigned i = 0; i < 100000; i++)
                log_warning("a flood, line %u", i);
        log_warning("something else");
        assert_true(dup2(saved, STDERR_FILENO) >= 0);
        assert_int_equal(file_read(path, 64 << 20, &text, &n, NULL), 0);
        for (const char *p = text; (p = strstr(p, "a flood")); p++)
                floods++;
        assert_in_range(floods, 200, 10000); /* the while may pass more than once */
        assert_non_null(strstr(text, "a flood, line 199\n"));
        assert_non_null(strstr(text, "something else"));
}

#define DIR_TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_size_good),  cmocka_unit_test(test_size_bad),
                cmocka_unit_test(test_size_human), cmocka_unit_test(test_name),
                cmocka_unit_test(test_id),         cmocka_unit_test(test_err),
                cmocka_unit_test(test_text),       cmocka_unit_test(test_fault),
                cmocka_unit_test(test_fault_file), DIR_TEST(test_remove_tree),
                DIR_TEST(test_remove_deep),        DIR_TEST(test_remove_while_swapped),
                DIR_TEST(test_log_flood),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
