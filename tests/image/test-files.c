/* The upload as a blob, and the folder's life: create, list, path, remove; checksum and cancel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/stat.h>
#include "backend/image/image-files.h"
#include "common/fileio.h"

static char dir[] = "/tmp/test-image.XXXXXX";

static int setup(void **state)
{
        if (!mkdtemp(dir))
                return -1;
        return image_files_open(dir, (struct image_service **)state, NULL);
}

static int teardown(void **state)
{
        struct image_service *s = *state;

        s->ops->close_service(s);
        return remove_tree(dir, NULL);
}

static void test_blob(void **state)
{
        struct image_service *s = *state;
        struct image_blob *b;
        char p[8] = "";

        assert_int_equal(s->ops->open(s, "a", false, &b, NULL), -ENOENT);
        assert_int_equal(s->ops->create(s, "../a", NULL), -EINVAL);
        assert_int_equal(s->ops->create(s, "a", NULL), 0);
        assert_int_equal(s->ops->open(s, "a", true, &b, NULL), 0);
        assert_int_equal(s->ops->size(b), 0);
        assert_int_equal(s->ops->pwrite(b, "hello", 5, 1 << 20), 0);
        assert_int_equal(s->ops->size(b), (1 << 20) + 5);
        assert_int_equal(s->ops->pread(b, p, sizeof(p), 1 << 20), 5);
        assert_string_equal(p, "hello");
        assert_int_equal(s->ops->pread(b, p, sizeof(p), 2 << 20), 0);
        assert_int_equal(s->ops->seek(b, 0, SEEK_DATA), 1 << 20);
        assert_int_equal(s->ops->seek(b, 0, SEEK_HOLE), 0);
        assert_int_equal(s->ops->seek(b, 2 << 20, SEEK_DATA), -ENXIO);
        assert_int_equal(s->ops->truncate(b, 3), 0);
        assert_int_equal(s->ops->size(b), 3);
        assert_int_equal(s->ops->sync(b), 0);
        s->ops->close(b);
        assert_int_equal(s->ops->create(s, "a", NULL), 0); /* again: empty */
        assert_int_equal(s->ops->open(s, "a", false, &b, NULL), 0);
        assert_int_equal(s->ops->size(b), 0);
        assert_int_equal(s->ops->pwrite(b, "x", 1, 0), -EBADF);
        s->ops->close(b);
}

static int count(void *arg, const char *id)
{
        ++*(int *)arg;
        return 0;
}
static int stop(void *arg, const char *id)
{
        return -EINTR;
}

static void test_life(void **state)
{
        struct image_service *s = *state;
        _cleanup_free_ char *path = NULL;
        struct stat st;
        int n = 0;

        assert_int_equal(s->ops->create(s, "a", NULL), 0);
        assert_int_equal(s->ops->create(s, "b", NULL), 0);
        assert_int_equal(s->ops->list(s, count, &n, NULL), 0);
        assert_int_equal(n, 2);
        assert_int_equal(s->ops->list(s, stop, NULL, NULL), -EINTR);
        assert_int_equal(s->ops->path(s, "a", &path, NULL), 0);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0644);
        assert_int_equal(s->ops->unpublish(s, "a", NULL), 0);
        assert_int_equal(s->ops->remove(s, "a", NULL), 0);
        assert_int_equal(s->ops->remove(s, "a", NULL), 0);
        assert_int_equal(s->ops->remove(s, "b", NULL), 0);
        n = 0;
        assert_int_equal(s->ops->list(s, count, &n, NULL), 0);
        assert_int_equal(n, 0);
}

static int cancel(void *arg, uint64_t done, uint64_t total)
{
        return -ECANCELED;
}

static void test_checksum(void **state)
{
        struct image_service *s = *state;
        struct image_progress p = {.report = cancel};
        struct image_blob *b;
        char sum[65];

        assert_int_equal(s->ops->create(s, "c", NULL), 0);
        assert_int_equal(s->ops->checksum(s, "c", sum, NULL, NULL), 0);
        assert_string_equal(sum,
                            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_int_equal(s->ops->open(s, "c", true, &b, NULL), 0);
        assert_int_equal(s->ops->pwrite(b, "abc", 3, 0), 0);
        s->ops->close(b);
        assert_int_equal(s->ops->checksum(s, "c", sum, NULL, NULL), 0);
        assert_string_equal(sum,
                            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_int_equal(s->ops->checksum(s, "c", sum, &p, NULL), -ECANCELED);
        assert_int_equal(s->ops->checksum(s, "none", sum, NULL, NULL), -ENOENT);
        assert_int_equal(s->ops->remove(s, "c", NULL), 0);
}

static void test_names(void **state)
{
        for (int f = IMAGE_RAW; f <= IMAGE_AMI; f++)
                assert_int_equal(image_format_parse(image_format_name(f)), f);
        assert_int_equal(image_format_parse("qed"), IMAGE_UNKNOWN);
        assert_int_equal(image_format_parse(NULL), IMAGE_UNKNOWN);
        assert_string_equal(image_format_name(99), "unknown");
        assert_false(image_format_bootable(IMAGE_AKI));
        assert_true(image_format_bootable(IMAGE_ISO));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_blob),
                cmocka_unit_test(test_life),
                cmocka_unit_test(test_checksum),
                cmocka_unit_test(test_names),
        };

        return cmocka_run_group_tests_name("image files", tests, setup, teardown);
}
