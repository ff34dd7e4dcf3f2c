/* What guests said on their serial consoles: console.log is of this boot, past/1 of the one before,
 * up to past/3; each a few MiB at most.
 *
 * The engine has console.log open and appends to it, so the file is never renamed: what is put away
 * is copied, and cut off at the front where the file system can do that under a writer, so that not
 * a byte is lost and who follows the file sees it get shorter.  virtlogd, which writes in system
 * mode, renames by itself, from 2 MiB on, to console.log.0, .1, .2: those are put away likewise.
 * What a guest said on hosts that it has left is in console.head, and shown before console.log. */
#include "control/jobs/jobs.h"

#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#include "common/fileio.h"

enum {
        LOG_MAX = 4 << 20,  /* one that grows beyond is put away while the guest runs */
        BLOCK = 64 << 10,   /* what is cut off is a multiple: of any file system's block */
        VIRTLOGD_FILES = 3, /* its max_backups */
};

char *instance_console_past(struct control *c, const struct object *o, unsigned boot)
{
        _cleanup_free_ char *dir = instance_dir(c, o);

        return xcheck(path_printf("%s/past/%u", dir, boot));
}

/* The oldest goes, the others are one older. */
static int shift(const char *dir)
{
        _cleanup_free_ char *past = xcheck(path_printf("%s/past", dir));
        int r = mkdir_parents(past, 0700, NULL);

        for (unsigned i = CONSOLES_PAST; r == 0 && i > 1; i--) {
                _cleanup_free_ char *from = xcheck(path_printf("%s/%u", past, i - 1));
                _cleanup_free_ char *to = xcheck(path_printf("%s/%u", past, i));

                if (rename(from, to) < 0 && errno != ENOENT)
                        r = -errno;
        }
        return r;
}

/* Bytes of from, from `at` up to n, behind what is there, or (anew) in its place. */
static int append(const char *to, bool anew, int from, off_t at, off_t n)
{
        _cleanup_close_ int fd =
                open(to, O_WRONLY | O_CREAT | O_CLOEXEC | (anew ? O_TRUNC : 0), 0600);

        if (fd < 0 || lseek(fd, 0, SEEK_END) < 0)
                return -errno;
        while (at < n) {
                ssize_t m = sendfile(fd, from, &at, (size_t)(n - at));

                if (m < 0 && errno != EINTR)
                        return -errno;
                if (m == 0)
                        break;
        }
        return 0;
}

static off_t size_of(const char *path)
{
        struct stat st;

        return stat(path, &st) == 0 ? st.st_size : 0;
}

/* The head, if it has one, and n bytes of what stands behind it. */
static int copy_out(const char *to, const char *head, int log, off_t n)
{
        _cleanup_close_ int fd = open(head, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        int r = append(to, true, fd, 0, fd < 0 ? 0 : size_of(head));

        return r < 0 ? r : append(to, false, log, 0, n);
}

/* running: somebody may append meanwhile. */
static int put_away(const char *dir, bool running)
{
        _cleanup_free_ char *log = xcheck(path_printf("%s/console.log", dir));
        _cleanup_free_ char *head = xcheck(path_printf("%s/console.head", dir));
        _cleanup_free_ char *to = xcheck(path_printf("%s/past/1", dir));
        _cleanup_close_ int fd = open(log, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        struct stat st;
        off_t n;
        int r;

        if (fd < 0 || fstat(fd, &st) < 0)
                return errno == ENOENT ? 0 : -errno;
        if (st.st_size == 0 && size_of(head) == 0)
                return 0;
        n = running ? st.st_size / BLOCK * BLOCK : st.st_size;
        r = shift(dir);
        if (r == 0)
                r = copy_out(to, head, fd, n);
        if (r < 0)
                return r;
        unlink(head);
        if (running && (n == 0 || fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, n) == 0))
                return 0;
        if (running && fstat(fd, &st) == 0) /* what came meanwhile, but for the last moment's */
                append(to, false, fd, n, st.st_size);
        return ftruncate(fd, 0) < 0 ? -errno : 0;
}

/* What virtlogd has put aside: younger than the head, older than the log. */
static void collect(const char *dir)
{
        _cleanup_free_ char *head = xcheck(path_printf("%s/console.head", dir));
        _cleanup_free_ char *to = xcheck(path_printf("%s/past/1", dir));

        for (int i = VIRTLOGD_FILES - 1; i >= 0; i--) {
                _cleanup_free_ char *from = xcheck(path_printf("%s/console.log.%d", dir, i));

                if (access(from, F_OK) < 0)
                        continue;
                if (size_of(head) && shift(dir) == 0 && rename(head, to) < 0)
                        log_warning("%s: %m", head);
                if (shift(dir) == 0 && rename(from, to) < 0)
                        log_warning("%s: %m", from);
        }
}

void console_new_boot(const char *dir)
{
        int r;

        collect(dir);
        r = put_away(dir, false);
        if (r < 0)
                log_warning("%s/console.log: not put away: %s", dir, strerror(-r));
}

/* The log of that folder, in which nobody writes, goes behind its head. */
static int join(const char *dir, struct err **e)
{
        _cleanup_free_ char *log = xcheck(path_printf("%s/console.log", dir));
        _cleanup_free_ char *head = xcheck(path_printf("%s/console.head", dir));
        _cleanup_close_ int fd = open(log, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        int r;

        if (fd < 0)
                return errno == ENOENT ? 0 : err_errno(e, -errno, "open '%s'", log);
        r = append(head, false, fd, 0, size_of(log));
        if (r == 0 && unlink(log) < 0)
                r = -errno;
        return r < 0 ? err_errno(e, r, "write '%s'", head) : 0;
}

/* By the one of that name in the other folder, if that has one. */
static int replace(const char *dir, const char *other, const char *name, struct err **e)
{
        _cleanup_free_ char *from = xcheck(path_printf("%s/%s", other, name));
        _cleanup_free_ char *to = xcheck(path_printf("%s/%s", dir, name));
        struct stat st;
        int r = 0;

        if (lstat(from, &st) < 0)
                return 0;
        if (S_ISDIR(st.st_mode))
                r = remove_tree(to, e);
        if (r == 0 && rename(from, to) < 0)
                r = err_errno(e, -errno, "rename '%s'", from);
        return r;
}

int console_arrived(const char *dir, const char *whole, struct err **e)
{
        int r;

        collect(whole ? whole : dir);
        r = join(whole ? whole : dir, e);
        if (r == 0 && whole)
                r = replace(dir, whole, "past", e);
        return r == 0 && whole ? replace(dir, whole, "console.head", e) : r;
}

static void console_trim(const char *dir)
{
        _cleanup_free_ char *log = xcheck(path_printf("%s/console.log", dir));
        _cleanup_free_ char *head = xcheck(path_printf("%s/console.head", dir));
        int r;

        collect(dir);
        if (size_of(log) + size_of(head) <= LOG_MAX)
                return;
        r = put_away(dir, true);
        if (r < 0)
                log_warning("%s: not put away: %s", log, strerror(-r));
}

void consoles_trim(struct control *c)
{
        struct object *o, *tmp;
        char **dirs = NULL;
        size_t n = 0;

        control_rdlock(c);
        HASH_ITER (hh_no, c->by_no, o, tmp) {
                if (o->kind != &kind_instance || !object_in(o, INSTANCE_RUNS) || !feed_ours(c, o))
                        continue;
                dirs = xrealloc(dirs, n + 1, sizeof(*dirs));
                dirs[n++] = instance_dir(c, o);
        }
        control_unlock(c);
        for (size_t i = 0; i < n; i++) {
                console_trim(dirs[i]);
                free(dirs[i]);
        }
        free(dirs);
}
