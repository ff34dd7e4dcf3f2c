/* Logs of consoles: put away at a start and when they become large, without losing a byte. */
#include "rig.h"

#include <sys/stat.h>

#include "control/jobs/jobs.h"

enum { LARGE = 5 << 20 };

static uint64_t running(void)
{
        uint64_t i = make(&kind_instance, "web");

        volume("root");
        assert_int_equal(set(i, &kind_instance, "flavor", "small"), 0);
        assert_int_equal(link_to(i, &kind_instance, "volumes", "vda", "volumes/root"), 0);
        assert_int_equal(verb(i, "start"), 0);
        assert_int_equal(wait_for(i, "active"), 0);
        return i;
}

static char *dir_of(uint64_t no)
{
        char *dir;

        control_rdlock(fake.c);
        dir = instance_dir(fake.c, model_by_no(fake.c, no));
        control_unlock(fake.c);
        return dir;
}

/* n lines of 8 bytes, counted from `from` on. */
static void say_on(int fd, unsigned from, unsigned n)
{
        _cleanup_buf_ struct buf b = {};

        for (unsigned i = from; i < from + n; i++)
                buf_printf(&b, "%07u\n", i);
        assert_int_equal(write_full(fd, b.data, b.len), 0);
}

static void read_log(const char *dir, const char *name, char **ret, size_t *n)
{
        _cleanup_free_ char *path = path_printf("%s/%s", dir, name);

        assert_int_equal(file_read(path, 2 * LARGE, ret, n, NULL), 0);
}

/* What is written goes on at the end of the file, by a descriptor opened before, as an engine's. */
static void test_large(void **state)
{
        uint64_t i = running();
        _cleanup_free_ char *dir = dir_of(i), *log = path_printf("%s/console.log", dir);
        _cleanup_free_ char *past = NULL, *now = NULL, *all;
        _cleanup_close_ int fd = -1;
        size_t npast, nnow;
        unsigned next = 0;

        assert_int_equal(mkdir_parents(dir, 0711, NULL), 0);
        fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        say_on(fd, 0, 1000);
        consoles_trim(fake.c); /* small: it stays */
        say_on(fd, 1000, LARGE / 8);
        consoles_trim(fake.c);
        say_on(fd, 1000 + LARGE / 8, 10);
        read_log(dir, "past/1", &past, &npast);
        read_log(dir, "console.log", &now, &nnow);
        assert_true(nnow < LARGE / 2);
        assert_int_equal(npast + nnow, LARGE + 1010 * 8);
        all = xrealloc(TAKE_PTR(past), npast + nnow + 1, 1);
        memcpy(all + npast, now, nnow);
        for (size_t at = 0; at < npast + nnow; at += 8)
                assert_int_equal(atoi(all + at), next++);
        consoles_trim(fake.c);
        read_log(dir, "past/1", &past, &npast);
        assert_int_equal(npast % (64 << 10), 0);
}

/* What virtlogd has put aside by itself comes between. */
static void test_boots(void **state)
{
        static const char *const words[] = {"zero", "one", "two", "three", "four"};
        uint64_t i = running();
        _cleanup_free_ char *dir = dir_of(i), *log = path_printf("%s/console.log", dir);
        _cleanup_free_ char *aside = path_printf("%s/console.log.0", dir);
        _cleanup_free_ char *a = NULL, *b = NULL, *c = NULL, *d = NULL, *e = NULL;
        size_t n;

        assert_int_equal(mkdir_parents(dir, 0711, NULL), 0);
        for (unsigned k = 0; k < ARRAY_SIZE(words); k++) {
                if (k == 3)
                        assert_int_equal(file_replace(aside, "aside", 5, 0600, NULL), 0);
                assert_int_equal(file_replace(log, words[k], strlen(words[k]), 0600, NULL), 0);
                console_new_boot(dir);
                console_new_boot(dir); /* nothing was said: nothing to keep */
        }
        read_log(dir, "past/1", &a, &n);
        assert_string_equal(a, "four");
        read_log(dir, "past/2", &b, &n);
        assert_string_equal(b, "three");
        read_log(dir, "past/3", &c, &n);
        assert_string_equal(c, "aside");
        read_log(dir, "console.log", &d, &n);
        assert_int_equal(n, 0);
        free(TAKE_PTR(aside));
        aside = path_printf("%s/past/4", dir);
        assert_int_equal(file_read(aside, 10, &e, &n, NULL), -ENOENT);
}

static void put(const char *dir, const char *name, const char *text)
{
        _cleanup_free_ char *path = path_printf("%s/%s", dir, name);

        assert_int_equal(mkdir_parents(dir, 0711, NULL), 0);
        assert_int_equal(file_replace(path, text, strlen(text), 0600, NULL), 0);
}

static void assert_log(const char *dir, const char *name, const char *text)
{
        _cleanup_free_ char *have = NULL;
        size_t n;

        read_log(dir, name, &have, &n);
        assert_int_equal(n, strlen(text));
        assert_memory_equal(have, text, n);
}

/* What came from another host stands before what is said here, and is put away with it. */
static void test_arrived(void **state)
{
        uint64_t i = running();
        _cleanup_free_ char *dir = dir_of(i), *whole = path_printf("%s.logs", dir);

        put(dir, "console.log", "there, as it left\n");
        assert_int_equal(console_arrived(dir, NULL, NULL), 0);
        assert_log(dir, "console.head", "there, as it left\n");
        put(dir, "console.log", "here\n");
        put(whole, "console.head", "before that\n");
        put(whole, "console.log", "there, as it left\nand on the way\n");
        assert_int_equal(console_arrived(dir, whole, NULL), 0);
        assert_log(dir, "console.head", "before that\nthere, as it left\nand on the way\n");
        assert_log(dir, "console.log", "here\n");
        console_new_boot(dir);
        assert_log(dir, "past/1", "before that\nthere, as it left\nand on the way\nhere\n");
        assert_log(dir, "console.log", "");
        assert_int_equal(remove_tree(whole, NULL), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {RIG_TEST(test_large), RIG_TEST(test_boots),
                                           RIG_TEST(test_arrived)};

        return rig_run(tests);
}
