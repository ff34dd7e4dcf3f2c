/* stratofs-unpack check FILE BYTES: whether FILE is a tree that a container may have as its root;
 * prints how many bytes it unpacks to.
 * stratofs-unpack into DIR BASE BYTES FILE: unpacks it into DIR, which is empty; user N of the
 * archive is user BASE + N of this host.
 *
 * Nothing of an archive is believed.  `check` runs behind the walls of common/confine.h.  `into`
 * has to make files of other owners, which those do not let pass; its walls are a user namespace
 * that has the container's users and no others, and a mount namespace whose root is DIR: there is
 * no path out of it, whatever the archive says, and nothing that the container itself could not do.
 *
 * Exit status: 0; 1 with words on stderr; 3 of `check`: it is no archive at all. */
#include <archive.h>
#include <archive_entry.h>
#include <err.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <locale.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "backend/image/unpack.h"
#include "common/fileio.h"
#include "common/macro.h"

enum {
        ENTRIES_MAX = 4 << 20,
        DEPTH_MAX = 100,
        PATH_BYTES = 4096,
        ENTRY_BYTES = 4096, /* that an empty one costs, on disk and in memory */
        TEXT_MAX = 80,
        STATUS_NO_ARCHIVE = 3,
        HOW = ARCHIVE_EXTRACT_OWNER | ARCHIVE_EXTRACT_PERM | ARCHIVE_EXTRACT_TIME |
              ARCHIVE_EXTRACT_XATTR | ARCHIVE_EXTRACT_SECURE_SYMLINKS |
              ARCHIVE_EXTRACT_SECURE_NODOTDOT | ARCHIVE_EXTRACT_SECURE_NOABSOLUTEPATHS,
};

#ifdef __SANITIZE_ADDRESS__ /* it would have to trace this process, which the walls forbid */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
        return 1;
}
#endif

/* A name of the archive's, for words: printable. */
static const char *shown(const char *name)
{
        static char text[TEXT_MAX + 1];
        size_t n = 0;

        for (; name[n] && n < TEXT_MAX; n++)
                text[n] = name[n] >= 0x20 && name[n] < 0x7f ? name[n] : '?';
        text[n] = '\0';
        return text;
}

/* --- what an entry may be -------------------------------------------------------------------- */

/* A path inside: no way up, no way from the top. */
static void check_path(const char *what, const char *path)
{
        unsigned depth = 0;

        if (!path || !*path)
                errx(1, "%s has no name that is text", what);
        if (strlen(path) >= PATH_BYTES)
                errx(1, "%s '%s' has too long a name", what, shown(path));
        if (path[0] == '/')
                errx(1, "%s '%s' begins at the root: refused", what, shown(path));
        for (const char *p = path; *p; p += strspn(p, "/")) {
                const size_t n = strcspn(p, "/");

                if (n == 2 && p[0] == '.' && p[1] == '.')
                        errx(1, "%s '%s' leads out of the tree: refused", what, shown(path));
                if (++depth > DEPTH_MAX)
                        errx(1, "%s '%s' is deeper than %d folders", what, shown(path), DEPTH_MAX);
                p += n;
        }
}

/* "dev/null", "./dev/null": a container gets a /dev of its own. */
static bool in_dev(const char *path)
{
        while (path[0] == '.' && path[1] == '/')
                path += 2;
        return strncmp(path, "dev/", 4) == 0;
}

/* false: it is left out. */
static bool check_entry(struct archive_entry *x)
{
        const char *path = archive_entry_pathname(x), *link = archive_entry_hardlink(x);

        check_path("entry", path);
        if (archive_entry_uid(x) < 0 || archive_entry_uid(x) >= UNPACK_IDS ||
            archive_entry_gid(x) < 0 || archive_entry_gid(x) >= UNPACK_IDS)
                errx(1, "entry '%s' is of user %" PRId64 ":%" PRId64 ": a container has %d",
                     shown(path), archive_entry_uid(x), archive_entry_gid(x), UNPACK_IDS);
        if (link) {
                check_path("link to", link);
                return true;
        }
        switch (archive_entry_filetype(x)) {
        case AE_IFREG:
        case AE_IFDIR:
        case AE_IFLNK: /* also to an absolute path: that is the container's own */
        case AE_IFIFO:
                return true;
        case AE_IFCHR:
        case AE_IFBLK:
                if (in_dev(path))
                        return false;
                errx(1, "entry '%s' is a device: refused", shown(path));
        default:
                errx(1, "entry '%s' is no file, folder or link: refused", shown(path));
        }
}

/* --- reading --------------------------------------------------------------------------------- */

static struct archive *archive_open(int fd)
{
        struct archive *a = archive_read_new();

        if (!a)
                errx(1, "out of memory");
        archive_read_support_filter_gzip(a);
        archive_read_support_filter_xz(a);
        archive_read_support_filter_zstd(a);
        archive_read_support_format_tar(a);
        if (archive_read_open_fd(a, fd, 64 << 10) != ARCHIVE_OK)
                errx(STATUS_NO_ARCHIVE, "no tar archive: %s", archive_error_string(a));
        return a;
}

struct count {
        uint64_t bytes, entries, max;
};

static void count_bytes(struct count *n, uint64_t bytes)
{
        if (bytes > n->max - n->bytes)
                errx(1, "it unpacks to more than %" PRIu64 " bytes", n->max);
        n->bytes += bytes;
}

/* The next entry that is wanted; NULL at the end. */
static struct archive_entry *next(struct archive *a, struct count *n)
{
        struct archive_entry *x;

        for (;;) {
                int r = archive_read_next_header(a, &x);

                if (r == ARCHIVE_EOF)
                        return NULL;
                if (r < ARCHIVE_WARN)
                        errx(n->entries ? 1 : STATUS_NO_ARCHIVE, "no tar archive: %s",
                             archive_error_string(a));
                if (++n->entries > ENTRIES_MAX)
                        errx(1, "it has more than %d entries", ENTRIES_MAX);
                count_bytes(n, ENTRY_BYTES);
                if (check_entry(x))
                        return x;
        }
}

/* Every byte of an entry; sparse ones are counted with their holes.  to NULL: only counted. */
static void copy_data(struct archive *a, struct archive *to, const char *path, struct count *n)
{
        int64_t at = 0, end = 0;
        const void *p;
        size_t size;
        int r;

        while ((r = archive_read_data_block(a, &p, &size, &at)) == ARCHIVE_OK) {
                if (at < end || at > INT64_MAX - (int64_t)size)
                        errx(1, "entry '%s' is damaged", shown(path));
                count_bytes(n, (uint64_t)at - end + size);
                end = at + (int64_t)size;
                if (to && archive_write_data_block(to, p, size, at) < ARCHIVE_WARN)
                        errx(1, "'%s': %s", shown(path), archive_error_string(to));
        }
        if (r != ARCHIVE_EOF)
                errx(1, "entry '%s': %s", shown(path), archive_error_string(a));
}

static int check(const char *file, uint64_t max)
{
        struct count n = {.max = max};
        int fd = open(file, O_RDONLY | O_CLOEXEC);
        struct archive_entry *x;
        struct archive *a;

        if (fd < 0)
                err(1, "open");
        a = archive_open(fd);
        while ((x = next(a, &n)))
                copy_data(a, NULL, archive_entry_pathname(x), &n);
        if (n.entries == 0)
                errx(STATUS_NO_ARCHIVE, "it holds nothing");
        printf("%" PRIu64 "\n", n.bytes);
        return 0;
}

/* --- writing --------------------------------------------------------------------------------- */

static int unpack(int fd, uint64_t max)
{
        struct archive *a = archive_open(fd), *to = archive_write_disk_new();
        struct count n = {.max = max};
        struct archive_entry *x;

        if (!to)
                errx(1, "out of memory");
        archive_write_disk_set_options(to, HOW);
        while ((x = next(a, &n))) {
                const char *path = archive_entry_pathname(x);

                if (archive_write_header(to, x) < ARCHIVE_WARN)
                        errx(1, "'%s': %s", shown(path), archive_error_string(to));
                copy_data(a, to, path, &n);
                if (archive_write_finish_entry(to) < ARCHIVE_WARN)
                        errx(1, "'%s': %s", shown(path), archive_error_string(to));
        }
        if (archive_write_close(to) < ARCHIVE_WARN) /* times and modes of folders */
                errx(1, "%s", archive_error_string(to));
        return 0;
}

/* The container's users, and its folder as the only one there is. */
static void enter_walls(const char *dir, int go)
{
        const struct rlimit none = {0, 0};
        const struct rlimit memory = {1 << 30, 1 << 30}; /* the archive's own folders, above all */
        char c;

        if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) < 0)
                err(1, "user namespace");
        if (write(go, "", 1) != 1 || read(go, &c, 1) != 1)
                errx(1, "no users for the namespace");
        if (setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
                err(1, "become root of the namespace");
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a change of user resets it */
        if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
            mount(dir, dir, NULL, MS_BIND, NULL) < 0 || chdir(dir) < 0 ||
            syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
                err(1, "enter the tree");
        setrlimit(RLIMIT_CORE, &none);
#ifndef __SANITIZE_ADDRESS__ /* its shadow is terabytes of address space */
        setrlimit(RLIMIT_AS, &memory);
#endif
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                err(1, "no new privileges");
}

/* The child has a namespace and waits for its users. */
static void map_users(pid_t pid, unsigned base)
{
        static const char *const files[] = {"uid_map", "gid_map"};
        char path[64], text[64];

        snprintf(text, sizeof(text), "0 %u %d", base, UNPACK_IDS);
        for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
                _cleanup_close_ int fd = -1;

                snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, files[i]);
                fd = open(path, O_WRONLY | O_CLOEXEC);
                if (fd < 0 || write_full(fd, text, strlen(text)) < 0)
                        err(1, "map users");
        }
}

static int into(const char *dir, unsigned base, uint64_t max, const char *file)
{
        int status, go[2], fd = open(file, O_RDONLY | O_CLOEXEC);
        char c;
        pid_t pid;

        if (fd < 0)
                err(1, "open");
        if (lchown(dir, base, base) < 0 ||
            socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, go) < 0)
                err(1, "prepare the tree");
        pid = fork();
        if (pid < 0)
                err(1, "fork");
        if (pid == 0) {
                close(go[0]);
                enter_walls(dir, go[1]);
                close(go[1]);
                _exit(unpack(fd, max));
        }
        close(go[1]);
        if (read(go[0], &c, 1) == 1) {
                map_users(pid, base);
                if (write(go[0], "", 1) != 1)
                        err(1, "start");
        }
        if (waitpid(pid, &status, 0) < 0)
                err(1, "wait");
        if (WIFSIGNALED(status))
                errx(1, "unpacking was killed by signal %d", WTERMSIG(status));
        return WEXITSTATUS(status);
}

static uint64_t number(const char *text, uint64_t max)
{
        char *end;
        uint64_t v = strtoull(text, &end, 10);

        if (*end || end == text || v > max)
                errx(2, "no number: '%s'", text);
        return v;
}

int main(int argc, char **argv)
{
        setlocale(LC_CTYPE, "C.UTF-8");
        umask(022);
        if (argc == 4 && streq(argv[1], "check"))
                return check(argv[2], number(argv[3], INT64_MAX));
        if (argc == 6 && streq(argv[1], "into"))
                return into(argv[2], (unsigned)number(argv[3], UINT32_MAX - UNPACK_IDS),
                            number(argv[4], INT64_MAX), argv[5]);
        fputs("usage: stratofs-unpack check FILE BYTES | into DIR BASE BYTES FILE\n", stderr);
        return 2;
}
