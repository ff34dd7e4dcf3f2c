/* The system calls of a confined child.  What is not here answers EPERM; a call by another ABI
 * (i386, x32) kills the process. */
#include "common/confine.h"

#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "common/fileio.h"

/* Absent on purpose, because Landlock does not see them: chmod, chown, utimes, xattrs, truncate by
 * path, links, kill and its kin, memfd_create, setsid and setpgid (the deadline kills a group). */
static const int ALLOWED[] = {
        /* files that are open */
        SCMP_SYS(read),
        SCMP_SYS(readv),
        SCMP_SYS(pread64),
        SCMP_SYS(preadv),
        SCMP_SYS(preadv2),
        SCMP_SYS(write),
        SCMP_SYS(writev),
        SCMP_SYS(pwrite64),
        SCMP_SYS(pwritev),
        SCMP_SYS(pwritev2),
        SCMP_SYS(lseek),
        SCMP_SYS(close),
        SCMP_SYS(close_range),
        SCMP_SYS(fstat),
        SCMP_SYS(fstatfs),
        SCMP_SYS(fsync),
        SCMP_SYS(fdatasync),
        SCMP_SYS(sync_file_range),
        SCMP_SYS(ftruncate),
        SCMP_SYS(fallocate),
        SCMP_SYS(fadvise64),
        SCMP_SYS(readahead),
        SCMP_SYS(copy_file_range),
        SCMP_SYS(sendfile),
        SCMP_SYS(getdents64),
        SCMP_SYS(dup),
        SCMP_SYS(dup2),
        SCMP_SYS(dup3),
        SCMP_SYS(fcntl),
        SCMP_SYS(flock),
        SCMP_SYS(ioctl),
        SCMP_SYS(fchdir),
        /* paths: open is below; Landlock decides */
        SCMP_SYS(stat),
        SCMP_SYS(lstat),
        SCMP_SYS(newfstatat),
        SCMP_SYS(statx),
        SCMP_SYS(statfs),
        SCMP_SYS(access),
        SCMP_SYS(faccessat),
        SCMP_SYS(faccessat2),
        SCMP_SYS(readlink),
        SCMP_SYS(readlinkat),
        SCMP_SYS(getcwd),
        SCMP_SYS(chdir),
        SCMP_SYS(creat),
        SCMP_SYS(unlink),
        SCMP_SYS(unlinkat),
        SCMP_SYS(rename),
        SCMP_SYS(renameat),
        SCMP_SYS(renameat2),
        SCMP_SYS(mkdir),
        SCMP_SYS(mkdirat),
        SCMP_SYS(rmdir),
        SCMP_SYS(umask),
        /* waiting */
        SCMP_SYS(pipe),
        SCMP_SYS(pipe2),
        SCMP_SYS(eventfd2),
        SCMP_SYS(signalfd4),
        SCMP_SYS(poll),
        SCMP_SYS(ppoll),
        SCMP_SYS(select),
        SCMP_SYS(pselect6),
        SCMP_SYS(epoll_create1),
        SCMP_SYS(epoll_ctl),
        SCMP_SYS(epoll_wait),
        SCMP_SYS(epoll_pwait),
        SCMP_SYS(timerfd_create),
        SCMP_SYS(timerfd_settime),
        SCMP_SYS(timerfd_gettime),
        SCMP_SYS(nanosleep),
        SCMP_SYS(clock_nanosleep),
        SCMP_SYS(clock_gettime),
        SCMP_SYS(clock_getres),
        SCMP_SYS(gettimeofday),
        SCMP_SYS(time),
        SCMP_SYS(times),
        /* memory */
        SCMP_SYS(mmap),
        SCMP_SYS(munmap),
        SCMP_SYS(mprotect),
        SCMP_SYS(mremap),
        SCMP_SYS(madvise),
        SCMP_SYS(msync),
        SCMP_SYS(mincore),
        SCMP_SYS(brk),
        SCMP_SYS(membarrier),
        SCMP_SYS(get_mempolicy),
        SCMP_SYS(set_mempolicy),
        /* threads and signals of its own */
        SCMP_SYS(futex),
        SCMP_SYS(set_robust_list),
        SCMP_SYS(get_robust_list),
        SCMP_SYS(set_tid_address),
        SCMP_SYS(rseq),
        SCMP_SYS(arch_prctl),
        SCMP_SYS(sched_yield),
        SCMP_SYS(sched_getaffinity),
        SCMP_SYS(sched_getparam),
        SCMP_SYS(sched_getscheduler),
        SCMP_SYS(rt_sigaction),
        SCMP_SYS(rt_sigprocmask),
        SCMP_SYS(rt_sigreturn),
        SCMP_SYS(rt_sigpending),
        SCMP_SYS(rt_sigsuspend),
        SCMP_SYS(rt_sigtimedwait),
        SCMP_SYS(sigaltstack),
        SCMP_SYS(restart_syscall),
        SCMP_SYS(exit),
        SCMP_SYS(exit_group),
        SCMP_SYS(execve),
        /* who and where it is */
        SCMP_SYS(getpid),
        SCMP_SYS(gettid),
        SCMP_SYS(getppid),
        SCMP_SYS(getpgrp),
        SCMP_SYS(getpgid),
        SCMP_SYS(getsid),
        SCMP_SYS(getuid),
        SCMP_SYS(geteuid),
        SCMP_SYS(getgid),
        SCMP_SYS(getegid),
        SCMP_SYS(getresuid),
        SCMP_SYS(getresgid),
        SCMP_SYS(getgroups),
        SCMP_SYS(getrusage),
        SCMP_SYS(getrlimit),
        SCMP_SYS(uname),
        SCMP_SYS(sysinfo),
        SCMP_SYS(getcpu),
        SCMP_SYS(getrandom),
};

/* Programs try these and do without, if told that the kernel has none. */
static const int MISSING[] = {SCMP_SYS(clone3), SCMP_SYS(openat2), SCMP_SYS(io_uring_setup)};

static const unsigned PRCTLS[] = {PR_SET_NAME,       PR_GET_NAME,     PR_SET_TIMERSLACK,
                                  PR_GET_TIMERSLACK, PR_GET_DUMPABLE, PR_CAPBSET_READ};

/* O_TRUNC only with write access: Landlock before ABI 3 lets O_RDONLY|O_TRUNC empty any file that
 * may be read. */
static int allow_open(scmp_filter_ctx ctx, int call, unsigned arg)
{
        const unsigned mask = O_ACCMODE | O_TRUNC;
        int r;

        r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, call, 1,
                             SCMP_CMP(arg, SCMP_CMP_MASKED_EQ, O_TRUNC, 0));
        if (r == 0)
                r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, call, 1,
                                     SCMP_CMP(arg, SCMP_CMP_MASKED_EQ, mask, O_WRONLY | O_TRUNC));
        if (r == 0)
                r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, call, 1,
                                     SCMP_CMP(arg, SCMP_CMP_MASKED_EQ, mask, O_RDWR | O_TRUNC));
        return r;
}

/* Threads yes, processes and namespaces no. */
static int allow_threads(scmp_filter_ctx ctx)
{
        const uint64_t namespaces = CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |
                                    CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWNS;

        return seccomp_rule_add(
                ctx, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD | namespaces, CLONE_THREAD));
}

static int add_rules(scmp_filter_ctx ctx)
{
        int r = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);

        for (size_t i = 0; r == 0 && i < ARRAY_SIZE(ALLOWED); i++)
                r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, ALLOWED[i], 0);
        for (size_t i = 0; r == 0 && i < ARRAY_SIZE(MISSING); i++)
                r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), MISSING[i], 0);
        for (size_t i = 0; r == 0 && i < ARRAY_SIZE(PRCTLS); i++)
                r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1,
                                     SCMP_A0(SCMP_CMP_EQ, PRCTLS[i]));
        if (r == 0) /* its own limits, not another process's */
                r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 1,
                                     SCMP_A0(SCMP_CMP_EQ, 0));
        if (r == 0)
                r = allow_open(ctx, SCMP_SYS(open), 1);
        if (r == 0)
                r = allow_open(ctx, SCMP_SYS(openat), 2);
        if (r == 0)
                r = allow_threads(ctx);
        return r;
}

/* libseccomp 2.5 writes the program to a descriptor only. */
static int export_filter(scmp_filter_ctx ctx, struct sock_filter **ret, unsigned short *ret_len)
{
        _cleanup_close_ int fd = memfd_create("seccomp", MFD_CLOEXEC);
        _cleanup_free_ struct sock_filter *filter = NULL;
        struct stat st;
        int r;

        if (fd < 0)
                return -errno;
        r = seccomp_export_bpf(ctx, fd);
        if (r < 0)
                return r;
        if (fstat(fd, &st) < 0)
                return -errno;
        if (st.st_size == 0 || (size_t)st.st_size / sizeof(*filter) > BPF_MAXINSNS)
                return -EFBIG;
        filter = malloc(st.st_size);
        if (!filter)
                return -ENOMEM;
        r = pread_full(fd, filter, st.st_size, 0);
        if (r < 0)
                return r;
        *ret_len = (unsigned short)((size_t)st.st_size / sizeof(*filter));
        *ret = TAKE_PTR(filter);
        return 0;
}

int confine_syscalls(struct sock_filter **ret, unsigned short *ret_len, struct err **e)
{
        scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
        int r;

        if (!ctx)
                return err_errno(e, -ENOMEM, "make a system call filter");
        r = add_rules(ctx);
        if (r == 0)
                r = export_filter(ctx, ret, ret_len);
        seccomp_release(ctx);
        return r < 0 ? err_errno(e, r, "make a system call filter") : 0;
}
