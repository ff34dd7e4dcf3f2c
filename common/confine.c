#include "common/confine.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum {
        MAX_FILES = 256,    /* RLIMIT_NOFILE */
        MAX_THREADS = 4096, /* RLIMIT_NPROC counts all of the user's, so it is not lower */
};

/* Newer than Debian 12's headers; the numbers are the kernel's ABI. */
#define FS_REFER (1ULL << 13)     /* ABI 2 */
#define FS_TRUNCATE (1ULL << 14)  /* ABI 3 */
#define FS_IOCTL_DEV (1ULL << 15) /* ABI 5 */
#define NET_ALL 3ULL              /* ABI 4: bind and connect of TCP */
#define SCOPE_ALL 3ULL            /* ABI 6: abstract sockets, signals */

struct ruleset_attr {
        uint64_t fs;
        uint64_t net;    /* ABI 4 */
        uint64_t scoped; /* ABI 6 */
};

#define FS_ALL_V1 ((LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1)
#define FS_READ                                                                                    \
        (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
/* No links, devices, sockets or fifos: who reads the folder afterwards might follow them. */
#define FS_WRITE                                                                                   \
        (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR |                              \
         LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG |                             \
         LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |                            \
         LANDLOCK_ACCESS_FS_REMOVE_DIR | FS_TRUNCATE)
/* What can be said about a path that is no folder. */
#define FS_OF_FILE                                                                                 \
        (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE |                               \
         LANDLOCK_ACCESS_FS_WRITE_FILE | FS_TRUNCATE | FS_IOCTL_DEV)

/* What any program needs to start.  A missing one is no failure. */
static const struct {
        const char *path;
        uint64_t access;
} SYSTEM[] = {
        {"/usr", FS_READ},
        {"/lib", FS_READ},
        {"/lib64", FS_READ},
        {"/bin", FS_READ},
        {"/etc/ld.so.cache", LANDLOCK_ACCESS_FS_READ_FILE},
        {"/dev/urandom", LANDLOCK_ACCESS_FS_READ_FILE},
        {"/dev/null", LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | FS_TRUNCATE},
        {"/sys/devices/system/cpu", LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR},
        {"/sys/devices/system/node", LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR},
};

/* Opens path for a rule, adds it.  0 or -errno without words. */
static int rule_add(int ruleset, uint64_t handled, const char *path, uint64_t access)
{
        _cleanup_close_ int fd = open(path, O_PATH | O_CLOEXEC);
        struct landlock_path_beneath_attr attr = {.parent_fd = fd};
        struct stat st;

        if (fd < 0 || fstat(fd, &st) < 0)
                return -errno;
        attr.allowed_access = access & handled & (S_ISDIR(st.st_mode) ? ~0ULL : FS_OF_FILE);
        if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &attr, 0) < 0)
                return -errno;
        return 0;
}

static int rules_add(int ruleset, uint64_t handled, const char *const *paths, uint64_t access,
                     struct err **e)
{
        for (; paths && *paths; paths++) {
                int r = rule_add(ruleset, handled, *paths, access);

                if (r < 0)
                        return err_errno(e, r, "allow access to '%s'", *paths);
        }
        return 0;
}

/* A ruleset that forbids all that this kernel's Landlock can forbid. */
static int ruleset_new(uint64_t *ret_handled, struct err **e)
{
        long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
        struct ruleset_attr attr = {.fs = FS_ALL_V1};
        size_t size = sizeof(attr.fs);
        long fd;

        if (abi < 1) {
                err_set(e, -ENOTSUP, "this kernel has no Landlock to confine a program with");
                err_hint(e, -ENOTSUP,
                         "boot with 'lsm=landlock,...' or a kernel of 5.13 or later that has "
                         "CONFIG_SECURITY_LANDLOCK");
                return -ENOTSUP;
        }
        attr.fs |= (abi >= 2 ? FS_REFER : 0) | (abi >= 3 ? FS_TRUNCATE : 0) |
                   (abi >= 5 ? FS_IOCTL_DEV : 0);
        if (abi >= 4) {
                attr.net = NET_ALL;
                size = offsetof(struct ruleset_attr, scoped);
        }
        if (abi >= 6) {
                attr.scoped = SCOPE_ALL;
                size = sizeof(attr);
        }
        fd = syscall(SYS_landlock_create_ruleset, &attr, size, 0);
        if (fd < 0)
                return err_errno(e, -errno, "make a Landlock ruleset");
        *ret_handled = attr.fs;
        return (int)fd;
}

static int ruleset_fill(int ruleset, uint64_t handled, const struct confine *c, const char *program,
                        struct err **e)
{
        const char *const programs[] = {program, NULL};
        int r;

        for (size_t i = 0; i < ARRAY_SIZE(SYSTEM); i++) {
                r = rule_add(ruleset, handled, SYSTEM[i].path, SYSTEM[i].access);
                if (r < 0 && r != -ENOENT)
                        return err_errno(e, r, "allow access to '%s'", SYSTEM[i].path);
        }
        r = rules_add(ruleset, handled, programs,
                      LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE, e);
        if (r == 0)
                r = rules_add(ruleset, handled, c->read,
                              LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR, e);
        if (r == 0)
                r = rules_add(ruleset, handled, c->write, FS_WRITE, e);
        return r;
}

int confine_prepare(const struct confine *c, const char *program, struct confinement *ret,
                    struct err **e)
{
        uint64_t handled = 0;
        int r;

        *ret = (struct confinement){.ruleset = -1, .limits = *c};
        r = ruleset_new(&handled, e);
        if (r >= 0) {
                ret->ruleset = r;
                r = ruleset_fill(ret->ruleset, handled, c, program, e);
        }
        if (r == 0)
                r = confine_syscalls(&ret->filter, &ret->filter_len, e);
        if (r < 0)
                confine_done(ret);
        return r;
}

void confine_done(struct confinement *c)
{
        if (c->ruleset >= 0)
                close(c->ruleset);
        free(c->filter);
        *c = (struct confinement){.ruleset = -1};
}

/* Lowers a limit, never raises it. */
static int limit(int which, uint64_t max)
{
        struct rlimit l;

        if (getrlimit(which, &l) < 0)
                return -errno;
        l.rlim_max = MIN(l.rlim_max, (rlim_t)max);
        l.rlim_cur = MIN(l.rlim_cur, l.rlim_max);
        return setrlimit(which, &l) < 0 ? -errno : 0;
}

static int limits_enter(const struct confine *c)
{
        int r = limit(RLIMIT_CORE, 0);

        if (r == 0)
                r = limit(RLIMIT_NOFILE, MAX_FILES);
        if (r == 0)
                r = limit(RLIMIT_NPROC, MAX_THREADS);
        if (r == 0 && c->max_memory)
                r = limit(RLIMIT_AS, c->max_memory);
        if (r == 0 && c->max_file_size)
                r = limit(RLIMIT_FSIZE, c->max_file_size);
        if (r == 0 && c->max_cpu)
                r = limit(RLIMIT_CPU, c->max_cpu);
        return r;
}

/* Without a bounding set, a uid of 0 gives exec() nothing to hand out.  A plain user may not drop
 * it and need not: no_new_privs is enough for one who has no capability. */
int capabilities_drop(void)
{
        struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};

        for (int cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
                if (prctl(PR_CAPBSET_READ, cap) == 1 && prctl(PR_CAPBSET_DROP, cap) < 0 &&
                    (errno != EPERM || getuid() == 0 || geteuid() == 0))
                        return -errno;
        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
                return -errno;
        return syscall(SYS_capset, &head, none) < 0 ? -errno : 0;
}

/* EPERM: the caller is no root.  The filter forbids sockets to everyone. */
static int namespaces_enter(void)
{
        if (unshare(CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) < 0 && errno != EPERM)
                return -errno;
        return 0;
}

static int filter_enter(const struct confinement *c)
{
        struct sock_fprog prog = {.len = c->filter_len, .filter = c->filter};

        return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) < 0 ? -errno : 0;
}

int confine_enter(const struct confinement *c, const char **ret_step)
{
        int r;

        *ret_step = "limit its resources";
        r = limits_enter(&c->limits);
        if (r < 0)
                return r;
        *ret_step = "give it empty namespaces";
        r = namespaces_enter();
        if (r < 0)
                return r;
        *ret_step = "drop its capabilities";
        r = capabilities_drop();
        if (r < 0)
                return r;
        *ret_step = "set no_new_privs";
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return -errno;
        *ret_step = "restrict its files";
        if (syscall(SYS_landlock_restrict_self, c->ruleset, 0) < 0)
                return -errno;
        *ret_step = "restrict its system calls";
        return filter_enter(c);
}
