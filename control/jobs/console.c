/* What guests said on their serial consoles: console.log is of this boot, past/1 of the one before,
 * up to past/3; each a few MiB at most.
 *
 * The engine has console.log open and appends to it, so the file is never renamed: what is put away
 * is copied, and cut off at the front where the file system can do that under a writer, so that not
 * a byte is lost and who follows the file sees it get shorter.  virtlogd, which writes in system
 * mode, renames by itself, from 2 MiB on, to console.log.0, .1, .2: those are put away likewise. */
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

/* Appends n bytes of from, from its start on. */
static int append(const char *to, int from, off_t n)
{
        _cleanup_close_ int fd = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        off_t at = 0;

        if (fd < 0)
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

/* running: somebody may append meanwhile. */
static int put_away(const char *dir, bool running)
{
        _cleanup_free_ char *log = xcheck(path_printf("%s/console.log", dir));
        _cleanup_free_ char *to = xcheck(path_printf("%s/past/1", dir));
        _cleanup_close_ int fd = open(log, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        struct stat st;
        off_t n;
        int r;

        if (fd < 0 || fstat(fd, &st) < 0)
                return errno == ENOENT ? 0 : -errno;
        if (st.st_size == 0)
                return 0;
        n = running ? st.st_size / BLOCK * BLOCK : st.st_size;
        r = shift(dir);
        if (r == 0)
                r = append(to, fd, n);
        if (r < 0)
                return r;
        if (running && fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, n) == 0)
                return 0;
        if (running && fstat(fd, &st) == 0) /* what came meanwhile, but for the last moment's */
                append(to, fd, st.st_size);
        return ftruncate(fd, 0) < 0 ? -errno : 0;
}

/* What virtlogd has put aside. */
static void collect(const char *dir)
{
        for (int i = VIRTLOGD_FILES - 1; i >= 0; i--) {
                _cleanup_free_ char *from = xcheck(path_printf("%s/console.log.%d", dir, i));
                _cleanup_free_ char *to = xcheck(path_printf("%s/past/1", dir));

                if (access(from, F_OK) == 0 && shift(dir) == 0 && rename(from, to) < 0)
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

static void console_trim(const char *dir)
{
        _cleanup_free_ char *log = xcheck(path_printf("%s/console.log", dir));
        struct stat st;
        int r;

        collect(dir);
        if (stat(log, &st) < 0 || st.st_size <= LOG_MAX)
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
