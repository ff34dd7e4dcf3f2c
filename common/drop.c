#include "common/drop.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "common/confine.h"
#include "common/macro.h"

/* LeakSanitizer stops its own process with ptrace(2), and so must be let. */
#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define SANITIZED true
#else
#define SANITIZED false
#endif

int drop_find_user(const char *name, struct drop_user *ret, struct err **e)
{
        const struct passwd *pw = getpwnam(name);
        char *end;
        unsigned long n;

        *ret = (struct drop_user){};
        if (pw) {
                ret->uid = pw->pw_uid;
                ret->gid = pw->pw_gid;
                if (strlen(name) < sizeof(ret->name))
                        strcpy(ret->name, name);
                return 0;
        }
        n = strtoul(name, &end, 10);
        if (streq(name, DROP_BLOCKD_USER))
                n = DROP_BLOCKD_UID;
        else if (end == name || *end || n >= UINT32_MAX)
                return err_set(e, -ENOENT, "there is no user '%s'", name);
        ret->uid = n;
        ret->gid = n;
        return 0;
}

int drop_to_user(const struct drop_user *u, struct err **e)
{
        int r;

        /* The bounding set while that is still allowed. */
        if (geteuid() == 0)
                for (int cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
                        if (prctl(PR_CAPBSET_DROP, cap) < 0)
                                return err_errno(e, -errno, "drop capability %d", cap);
        if (u && geteuid() == 0) {
                if ((u->name[0] ? initgroups(u->name, u->gid) : setgroups(0, NULL)) < 0 ||
                    setresgid(u->gid, u->gid, u->gid) < 0 || setresuid(u->uid, u->uid, u->uid) < 0)
                        return err_errno(e, -errno, "become user %u", (unsigned)u->uid);
        }
        if (SANITIZED)
                prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
        r = capabilities_drop();
        if (r == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                r = -errno;
        return r < 0 ? err_errno(e, r, "drop capabilities") : 0;
}

int drop_for_children(struct err **e)
{
        static const unsigned never[] = {CAP_LINUX_IMMUTABLE,
                                         CAP_IPC_OWNER,
                                         CAP_SYS_RAWIO,
                                         CAP_SYS_PACCT,
                                         CAP_SYS_BOOT,
                                         CAP_SYS_TIME,
                                         CAP_SYS_TTY_CONFIG,
                                         CAP_LEASE,
                                         CAP_AUDIT_CONTROL,
                                         CAP_AUDIT_READ,
                                         CAP_MAC_OVERRIDE,
                                         CAP_SYSLOG,
                                         CAP_WAKE_ALARM,
                                         CAP_BLOCK_SUSPEND,
                                         38 /* PERFMON */,
                                         CAP_SYS_MODULE,
                                         40 /* CHECKPOINT_RESTORE */};
        struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct have[_LINUX_CAPABILITY_U32S_3];

        if (geteuid() != 0)
                return 0;
        if (syscall(SYS_capget, &head, have) < 0)
                return err_errno(e, -errno, "capabilities");
        for (size_t i = 0; i < ARRAY_SIZE(never); i++) {
                const unsigned word = never[i] / 32;
                const uint32_t bit = UINT32_C(1) << never[i] % 32;

                have[word].effective &= ~bit;
                have[word].permitted &= ~bit;
                have[word].inheritable &= ~bit;
                /* A container may not let us; then it has few of them itself. */
                if (prctl(PR_CAPBSET_DROP, never[i]) < 0 && errno != EINVAL && errno != EPERM)
                        return err_errno(e, -errno, "drop capability %u", never[i]);
        }
        if (syscall(SYS_capset, &head, have) < 0)
                return err_errno(e, -errno, "capabilities");
        return 0;
}

static const char *const KERNEL[] = {"acct",
                                     "adjtimex",
                                     "bpf",
                                     "chroot",
                                     "clock_adjtime",
                                     "clock_settime",
                                     "delete_module",
                                     "fanotify_init",
                                     "finit_module",
                                     "fsconfig",
                                     "fsmount",
                                     "fsopen",
                                     "fspick",
                                     "init_module",
                                     "ioperm",
                                     "iopl",
                                     "kcmp",
                                     "kexec_load",
                                     "kexec_file_load",
                                     "lookup_dcookie",
                                     "mknod",
                                     "mknodat",
                                     "modify_ldt",
                                     "mount",
                                     "mount_setattr",
                                     "move_mount",
                                     "open_tree",
                                     "personality",
                                     "open_by_handle_at",
                                     "perf_event_open",
                                     "pidfd_getfd",
                                     "pivot_root",
                                     "quotactl",
                                     "quotactl_fd",
                                     "process_vm_readv",
                                     "ptrace",
                                     "reboot",
                                     "setdomainname",
                                     "process_vm_writev",
                                     "sethostname",
                                     "setns",
                                     "settimeofday",
                                     "swapoff",
                                     "swapon",
                                     "syslog",
                                     "umount2",
                                     "unshare",
                                     "userfaultfd",
                                     "vhangup"};

static const char *const ALONE[] = {"execve",         "execveat", "fork",    "vfork",
                                    "clone",          "clone3",   "socket",  "connect",
                                    "io_uring_setup", "keyctl",   "add_key", "request_key"};

static int forbid(scmp_filter_ctx f, const char *const *names, size_t n)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < n; i++) {
                int call = seccomp_syscall_resolve_name(names[i]);

                if (call != __NR_SCMP_ERROR && !(SANITIZED && streq(names[i], "ptrace")))
                        r = seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), call, 0);
        }
        return r;
}

/* Sockets by family; processes, but no namespace with them.  clone3() has its flags in memory,
 * where a filter cannot see them: who is told that there is none takes clone(). */
static int forbid_some(scmp_filter_ctx f)
{
        static const uint64_t namespaces[] = {CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC,
                                              CLONE_NEWUSER,   CLONE_NEWPID, CLONE_NEWNET,
                                              CLONE_NEWNS};
        static const int allowed[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};
        int r = seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);

        for (size_t i = 0; r == 0 && i < ARRAY_SIZE(namespaces); i++)
                r = seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
                                     SCMP_A0(SCMP_CMP_MASKED_EQ, namespaces[i], namespaces[i]));
        for (int family = 0; r == 0 && family < AF_MAX; family++) {
                bool ok = false;

                for (size_t i = 0; i < ARRAY_SIZE(allowed); i++)
                        ok |= family == allowed[i];
                if (!ok)
                        r = seccomp_rule_add(f, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), 1,
                                             SCMP_A0(SCMP_CMP_MASKED_EQ, 0xffffffff, family));
        }
        return r;
}

int drop_calls(enum drop_calls which, struct err **e)
{
        scmp_filter_ctx f = seccomp_init(SCMP_ACT_ALLOW);
        int r = f ? seccomp_attr_set(f, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS) : -ENOMEM;

        if (r == 0)
                r = forbid(f, KERNEL, ARRAY_SIZE(KERNEL));
        if (r == 0)
                r = which == DROP_ALONE ? forbid(f, ALONE, ARRAY_SIZE(ALONE)) : forbid_some(f);
        if (r == 0)
                r = seccomp_load(f);
        seccomp_release(f);
        return r < 0 ? err_errno(e, r, "forbid system calls") : 0;
}

void drop_dumps(bool own)
{
        _cleanup_close_ int fd = open("/proc/self/coredump_filter", O_WRONLY | O_CLOEXEC);

        /* Where a core is written all the same, it has no memory in it. */
        if (fd >= 0 && write(fd, "0", 1) < 0)
                errno = 0; /* a kernel without cores */
        prctl(PR_SET_DUMPABLE, SANITIZED || !own, 0, 0, 0);
}
