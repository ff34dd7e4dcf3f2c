#include "cli/proc.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/fileio.h"
#include "common/macro.h"

enum { HOLDERS_SHOWN = 8, CMDLINE_MAX = 1 << 20 };

static inline void cleanup_dir_(DIR **d)
{
        if (*d)
                closedir(*d);
}
#define _cleanup_dir_ _cleanup_(cleanup_dir_)

/* A file of /proc, at most max bytes; NULL when it cannot be read. */
static char *proc_read(pid_t pid, const char *name, size_t max, size_t *ret_len)
{
        char path[64];
        char *text = NULL;

        snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
        if (file_read(path, max, &text, ret_len, NULL) < 0)
                return NULL;
        return text;
}

bool proc_facts(pid_t pid, struct proc_facts *ret)
{
        _cleanup_free_ char *stat = proc_read(pid, "stat", 4096, NULL);
        _cleanup_free_ char *rollup = proc_read(pid, "smaps_rollup", 4096, NULL);
        char link[64], exe[PATH_MAX];
        unsigned long long start = 0;
        struct timespec now;
        const char *p;
        ssize_t n;

        *ret = (struct proc_facts){};
        p = stat ? strrchr(stat, ')') : NULL; /* the name before it may hold anything */
        if (!p)
                return false;
        snprintf(ret->name, sizeof(ret->name), "%.*s", (int)(p - strchr(stat, '(') - 1),
                 strchr(stat, '(') + 1);
        sscanf(p + 2,
               "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d "
               "%llu",
               &start);
        clock_gettime(CLOCK_BOOTTIME, &now);
        ret->uptime = now.tv_sec - (int64_t)(start / (unsigned long long)sysconf(_SC_CLK_TCK));
        p = rollup ? strstr(rollup, "\nPss:") : NULL;
        if (p)
                ret->pss = strtoull(p + 5, NULL, 10) * 1024;
        snprintf(link, sizeof(link), "/proc/%d/exe", pid);
        n = readlink(link, exe, sizeof(exe) - 1);
        if (n > 0) {
                exe[n] = '\0';
                ret->replaced = n > 10 && streq(exe + n - 10, " (deleted)");
        }
        return true;
}

pid_t proc_parent(pid_t pid)
{
        _cleanup_free_ char *stat = proc_read(pid, "stat", 4096, NULL);
        const char *p = stat ? strrchr(stat, ')') : NULL;
        int parent = 0;

        return p && sscanf(p + 2, "%*c %d", &parent) == 1 ? parent : 0;
}

static bool below(const char *path, const char *top)
{
        size_t n = strlen(top);

        return strncmp(path, top, n) == 0 && (path[n] == '\0' || path[n] == '/');
}

static bool link_below(const char *link, const char *top)
{
        char target[PATH_MAX];
        ssize_t n = readlink(link, target, sizeof(target) - 1);

        if (n <= 0)
                return false;
        target[n] = '\0';
        return below(target, top);
}

static bool holds(const char *pid, const char *top)
{
        _cleanup_dir_ DIR *fds = NULL;
        char link[600];

        snprintf(link, sizeof(link), "/proc/%s/cwd", pid);
        if (link_below(link, top))
                return true;
        snprintf(link, sizeof(link), "/proc/%s/root", pid);
        if (link_below(link, top))
                return true;
        snprintf(link, sizeof(link), "/proc/%s/fd", pid);
        fds = opendir(link);
        for (const struct dirent *d; fds && (d = readdir(fds));) {
                snprintf(link, sizeof(link), "/proc/%s/fd/%s", pid, d->d_name);
                if (link_below(link, top))
                        return true;
        }
        return false;
}

unsigned proc_holders(const char *path, struct buf *out)
{
        _cleanup_dir_ DIR *proc = opendir("/proc");
        unsigned n = 0;

        for (const struct dirent *d; proc && (d = readdir(proc));) {
                struct proc_facts f;

                if (!isdigit((unsigned char)d->d_name[0]) || atoi(d->d_name) == getpid() ||
                    !holds(d->d_name, path))
                        continue;
                if (n < HOLDERS_SHOWN && proc_facts(atoi(d->d_name), &f))
                        buf_printf(out, "%s%s (%s)", n ? ", " : "", f.name, d->d_name);
                n++;
        }
        if (n > HOLDERS_SHOWN)
                buf_printf(out, " and %u more", n - HOLDERS_SHOWN);
        return n;
}

/* Whether any argument of n bytes of command line has "dir/" in it. */
static bool names_path(const char *cmdline, size_t n, const char *dir)
{
        _cleanup_free_ char *needle = path_printf("%s/", dir);

        return needle && memmem(cmdline, n, needle, strlen(needle));
}

unsigned proc_guests(const char *run, const char *state, pid_t *pids, unsigned max)
{
        _cleanup_dir_ DIR *proc = opendir("/proc");
        unsigned found = 0;

        for (const struct dirent *d; proc && (d = readdir(proc));) {
                _cleanup_free_ char *cmdline = NULL;
                const char *base;
                pid_t pid = atoi(d->d_name);
                size_t n;

                if (!isdigit((unsigned char)d->d_name[0]))
                        continue;
                cmdline = proc_read(pid, "cmdline", CMDLINE_MAX, &n);
                if (!cmdline || n == 0)
                        continue;
                base = strrchr(cmdline, '/');
                base = base ? base + 1 : cmdline;
                if (strncmp(base, "qemu-system-", 12) != 0 && strncmp(base, "qemu-kvm", 8) != 0)
                        continue;
                /* Guests have a name; libvirt's questions to a QEMU about itself have none. */
                if (!memmem(cmdline, n, "guest=", 6))
                        continue;
                if (!names_path(cmdline, n, run) && !names_path(cmdline, n, state))
                        continue;
                if (pids && found < max)
                        pids[found] = pid;
                found++;
        }
        return found;
}
