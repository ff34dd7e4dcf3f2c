/* Objects on their way: writes into the tree, and waiting for what they began. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/item.h"
#include "cli/tree.h"
#include "common/clock.h"
#include "common/fileio.h"
#include "common/macro.h"

enum { WORDS_MAX = 64 << 10, PART = 1 << 20 };

/* A failure's record is "TIME SEQ uid=U pid=P OP PATH ERRNO: words", and more in the lines below.
 */
static char *words_of_record(const char *text, const char *mine)
{
        const char *p = mine ? strstr(text, mine) : text, *end, *colon;

        if (!p)
                return NULL;
        end = strchrnul(p, '\n');
        colon = memmem(p, (size_t)(end - p), ": ", 2);
        return colon ? strndup(colon + 2, strlen(colon + 2) - (colon[2] != '\0')) : NULL;
}

int cloud_words(const char *inside, int code, struct err **e)
{
        /* self/error is at the top of the mount, which begins where `tenants` is. */
        const char *top = strstr(inside, "/tenants/");
        _cleanup_free_ char *file = NULL, *text = NULL, *words = NULL;
        char mine[32];

        snprintf(mine, sizeof(mine), " pid=%d ", (int)getpid());
        for (const char *p = top; p; p = strstr(p + 1, "/tenants/"))
                top = p;
        file = top ? path_printf("%.*s/self/error", (int)(top - inside), inside) : NULL;
        if (file && file_read(file, WORDS_MAX, &text, NULL, NULL) == 0)
                words = words_of_record(text, mine);
        return words ? err_set(e, code, "%s", words) : err_errno(e, code, "%s", inside);
}

/* One document in one write(2). */
static int write_document(const char *file, const json_t *doc, struct err **e)
{
        _cleanup_close_ int fd = open(file, O_WRONLY | O_CLOEXEC);
        _cleanup_free_ char *text = json_dumps(doc, JSON_COMPACT);
        ssize_t n;

        if (!text)
                return -ENOMEM;
        if (fd < 0)
                return cloud_words(file, -errno, e);
        n = write(fd, text, strlen(text));
        if (n < 0)
                return cloud_words(file, -errno, e);
        return (size_t)n == strlen(text) ? 0 : err_set(e, -EIO, "short write to '%s'", file);
}

int item_make(struct item *it, struct err **e)
{
        const char *slash = strrchr(it->path, '/'), *key;
        _cleanup_free_ char *file = path_printf("%.*s/new", (int)(slash - it->path), it->path);
        json_auto_t *doc = json_object();
        json_t *v;

        if (!file || !doc)
                return -ENOMEM;
        json_object_set_new(doc, "name", json_string(slash + 1));
        json_object_foreach (it->want, key, v) {
                if (json_is_null(v) || item_own_key(it, key))
                        continue;
                json_object_set(doc, key, v);
        }
        it->touched = true;
        return write_document(file, doc, e);
}

int item_snapshot(struct item *it, const char *name, int timeout, struct err **e)
{
        _cleanup_free_ char *path = path_printf("%s/snapshots/%s", it->path, name);
        int r;

        if (!path)
                return -ENOMEM;
        if (mkdir(path, 0755) < 0)
                return cloud_words(path, -errno, e);
        r = wait_for(path, "available", timeout);
        return r < 0 ? err_errno(e, r, "wait for snapshot '%s'", name) : 0;
}

int item_write(struct item *it, json_t *patch, struct err **e)
{
        _cleanup_free_ char *file = path_printf("%s/spec", it->path);

        if (!file)
                return -ENOMEM;
        json_object_set_new(patch, "rev", json_integer(it->rev));
        it->touched = true;
        return write_document(file, patch, e);
}

static int copy_bytes(int from, int to, const char *path, struct err **e)
{
        _cleanup_free_ char *part = malloc(PART);
        ssize_t n;
        int r;

        if (!part)
                return -ENOMEM;
        while ((n = read(from, part, PART)) != 0) {
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return err_errno(e, -errno, "read");
                r = write_full(to, part, (size_t)n);
                if (r < 0)
                        return cloud_words(path, r, e);
        }
        return 0;
}

int item_upload(struct item *it, struct err **e)
{
        const char *from = json_string_value(json_object_get(it->want, "file"));
        _cleanup_free_ char *to = path_printf("%s/data", it->path);
        _cleanup_close_ int in = open(from, O_RDONLY | O_CLOEXEC), out = -1;
        int r;

        if (in < 0)
                return err_errno(e, -errno, "open '%s'", from);
        if (!to)
                return -ENOMEM;
        out = open(to, O_WRONLY | O_CLOEXEC);
        if (out < 0)
                return cloud_words(to, -errno, e);
        it->touched = true;
        r = copy_bytes(in, out, to, e);
        if (close(TAKE_FD(out)) < 0 && r == 0)
                r = cloud_words(to, -errno, e);
        return r;
}

int item_verb(struct item *it, const char *verb, struct err **e)
{
        _cleanup_free_ char *file = path_printf("%s/ctl", it->path);
        _cleanup_close_ int fd = file ? open(file, O_WRONLY | O_CLOEXEC) : -1;

        if (fd < 0 || write(fd, verb, strlen(verb)) < 0)
                return file ? cloud_words(file, -errno, e) : -ENOMEM;
        it->touched = true;
        return 0;
}

int wait_for(const char *path, const char *state, int seconds)
{
        _cleanup_free_ char *file = path_printf("%s/.wait/%s@%d", path, state, MAX(seconds, 1));
        _cleanup_close_ int fd = file ? open(file, O_RDONLY | O_CLOEXEC) : -1;
        char text[256];
        ssize_t n;

        if (fd < 0)
                return -errno;
        do
                n = read(fd, text, sizeof(text));
        while (n < 0 && errno == EINTR);
        return n < 0 ? -errno : 0;
}

int item_remove(struct item *it, int timeout, struct err **e)
{
        const char *slash = strrchr(it->path, '/');
        _cleanup_free_ char *id_file = path_printf("%s/id", it->path), *id = NULL, *by_id = NULL;
        _cleanup_free_ char *state_file = path_printf("%s/state", it->path), *state = NULL;
        bool deleted = false;
        int r;

        id = id_file ? tree_line(id_file) : NULL;
        state = state_file ? tree_line(state_file) : NULL;
        if (!id || !state)
                return err_set(e, -ENOENT, "it is gone");
        by_id = path_printf("%.*s/.id/%s", (int)(slash - it->path), it->path, id);
        if (!by_id)
                return -ENOMEM;
        if (item_is(it, "instances") && state_has_guest(state) && !streq(state, "stopping")) {
                deleted = !streq(state, "active"); /* what cannot be stopped */
                r = item_verb(it, deleted ? "delete" : "stop", e);
                if (r < 0)
                        return r;
        }
        if (!deleted && rmdir(it->path) < 0)
                return cloud_words(it->path, -errno, e);
        r = wait_for(by_id, "gone", timeout);
        return r < 0 && r != -ENOENT ? err_errno(e, r, "wait for its end") : 0;
}

static bool has_job(const struct item *it)
{
        _cleanup_free_ char *file = path_printf("%s/job", it->path);
        struct stat st;

        return file && lstat(file, &st) == 0;
}

int item_settle(struct item *it, int timeout, struct err **e)
{
        _cleanup_free_ char *state_file = path_printf("%s/state", it->path), *state = NULL;
        _cleanup_free_ char *error = path_printf("%s/error", it->path), *now = NULL, *words = NULL;
        int64_t end = clock_mono() + timeout * INT64_C(1000000);
        int r = 0;

        if (!it->touched || !state_file || !error)
                return it->touched ? -ENOMEM : 0;
        it->touched = false;
        if (item_is(it, "images") && json_object_get(it->want, "file"))
                r = wait_for(it->path, "active", timeout);
        if (r == -ETIMEDOUT)
                return err_set(e, r, "not active after %d s", timeout);
        /* A job that ends between the look and the wait costs a second, no more. */
        while (r != -ENOENT && has_job(it) && clock_mono() < end)
                r = wait_for(it->path, "change", 1);
        if (has_job(it))
                return err_set(e, -ETIMEDOUT, "its job goes on after %d s", timeout);
        state = tree_line(state_file);
        if (!state)
                return err_set(e, -ENOENT, "it is gone");
        (void)file_read(error, WORDS_MAX, &now, NULL, NULL);
        if (!streq(state, "error") && (!now || !*now || streq(now, it->words ?: "")))
                return 0;
        words = words_of_record(now ?: "", NULL);
        return err_set(e, -EIO, "%s", words ?: "it is in error");
}
