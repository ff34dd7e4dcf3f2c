/* The session: mount, serve, stop, unmount. */
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include "common/child.h"
#include "common/log.h"
#include "fs/ephemeral.h"
#include "fs/gate.h"
#include "fs/hold.h"
#include "fs/nbd.h"
#include "fs/ops.h"

enum { THREADS = 64, IDLE_THREADS = 4, BACKGROUND = 128 };

static void op_init(void *arg, struct fuse_conn_info *conn)
{
        struct fs *fs = arg;

        /* From memory to the device directly: splice is slower for every size we serve. */
        conn->want &=
                ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
        /* A kept listing without its nodes would cost an `ls -l` two requests a name. */
        conn->want &= ~(unsigned)FUSE_CAP_READDIRPLUS_AUTO;
        conn->max_background = BACKGROUND;
        conn->congestion_threshold = BACKGROUND * 3 / 4;
        cache_init(fs, conn);
}

/* No xattr calls on purpose: the kernel asks for each once, gets ENOSYS, and `ls -l` is three
 * times as fast. */
static const struct fuse_lowlevel_ops ops = {
        .init = op_init,
        .lookup = op_lookup,
        .forget = op_forget,
        .forget_multi = op_forget_multi,
        .getattr = op_getattr,
        .setattr = op_setattr,
        .readlink = op_readlink,
        .mknod = op_mknod,
        .mkdir = op_mkdir,
        .unlink = op_unlink,
        .rmdir = op_rmdir,
        .symlink = op_symlink,
        .rename = op_rename,
        .link = op_link,
        .open = op_open,
        .read = op_read,
        .write = op_write,
        .flush = op_flush,
        .release = op_release,
        .fsync = op_fsync,
        .opendir = op_opendir,
        .readdir = op_readdir,
        .readdirplus = op_readdirplus,
        .statfs = op_statfs,
        .create = op_create,
        .poll = op_poll,
        .fallocate = op_fallocate,
        .lseek = op_lseek,
        .copy_file_range = op_copy_file_range,
};

/* A daemon that died leaves its mount behind, answering ENOTCONN. */
static void remove_dead_mount(const char *path)
{
        const char *argv[] = {"fusermount3", "-u", "-z", "--", path, NULL};
        struct stat st;

        if (stat(path, &st) == 0 || errno != ENOTCONN)
                return;
        log_info("%s: taking off a dead mount", path);
        if (umount2(path, MNT_DETACH) < 0)
                (void)child_check(&(struct child){.argv = argv, .timeout_ms = 10000}, NULL);
}

static int make_session(struct fs *fs, const struct fs_config *cfg, struct err **e)
{
        const char *fsname = cfg->fsname ?: "stratofs";
        _cleanup_buf_ struct buf opts = {0};
        char arg0[] = "stratod", arg1[] = "-o";
        char *argv[] = {arg0, arg1, NULL, NULL};
        struct fuse_args args = FUSE_ARGS_INIT(3, argv);

        /* allow_other never comes without default_permissions: without it the kernel would reuse
         * one user's answer for another. */
        buf_printf(&opts, "default_permissions,nosuid,nodev,noexec,subtype=stratofs,fsname=%s%s",
                   fsname, cfg->allow_other ? ",allow_other" : "");
        if (opts.failed)
                return -ENOMEM;
        argv[2] = opts.data;
        fs->se = fuse_session_new(&args, &ops, sizeof(ops), fs);
        fuse_opt_free_args(&args);
        if (!fs->se)
                return err_set(e, -EINVAL, "libfuse refused the mount's options");
        return 0;
}

static int mount_or_adopt(struct fs *fs, const struct fs_config *cfg, struct err **e)
{
        int r;

        if (fs->hold->adopted) {
                r = make_session(fs, cfg, e);
                if (r == 0)
                        r = hold_adopt(fs);
                if (r != -ESTALE)
                        return r;
                fuse_session_destroy(TAKE_PTR(fs->se));
                hold_free(fs);
                fs->holder.device = fs->holder.memory = -1;
                r = hold_new(fs, cfg, e);
                if (r < 0)
                        return r;
        }
        remove_dead_mount(fs->mountpoint);
        r = make_session(fs, cfg, e);
        if (r < 0)
                return r;
        if (fuse_session_mount(fs->se, fs->mountpoint) != 0)
                return err_set(e, -EIO, "mount %s: see libfuse's message above", fs->mountpoint);
        return hold_adopt(fs);
}

static void release(struct fs *fs)
{
        hold_free(fs);
        free(fs->mountpoint);
        free(fs->state);
        refusals_free(fs->refusals);
        ephemerals_free(fs->ephemerals);
        pthread_cond_destroy(&fs->changed);
        pthread_mutex_destroy(&fs->lock);
        free(fs);
}

int fs_open(const struct fs_config *cfg, struct fs **ret, struct err **e)
{
        struct fs *fs = calloc(1, sizeof(*fs));
        int r;

        if (!fs)
                return -ENOMEM;
        pthread_mutex_init(&fs->lock, NULL);
        pthread_cond_init(&fs->changed, NULL);
        fs->control = cfg->control;
        fs->ready = cfg->ready;
        fs->arg = cfg->arg;
        fs->born = clock_now();
        fs->mountpoint = strdup(cfg->mountpoint);
        fs->state = cfg->state ? strdup(cfg->state) : NULL;
        fs->watchdog = cfg->watchdog;
        fs->alive = cfg->alive;
        fs->holder = cfg->holder ? *cfg->holder : (struct fs_holder){.device = -1, .memory = -1};
        r = fs->mountpoint && (fs->state || !cfg->state) ? 0 : -ENOMEM;
        if (!r)
                r = hold_new(fs, cfg, e);
        if (!r)
                r = ephemerals_new(fs->hold->m->lives, &fs->ephemerals);
        if (!r)
                r = refusals_new(&fs->refusals);
        if (!r)
                r = waits_new(&fs->waits);
        if (!r)
                r = nbd_new(&fs->nbd);
        if (!r)
                r = polls_new(fs);
        if (!r)
                r = notices_new(fs, cfg->watch);
        if (!r)
                r = cache_new(fs);
        if (!r)
                r = mount_or_adopt(fs, cfg, e);
        if (!r && fs->watchdog)
                r = watchdog_start(fs->hold, fs->watchdog, fs->alive, fs->arg);
        if (r < 0) {
                if (fs->se)
                        fuse_session_destroy(TAKE_PTR(fs->se));
                waits_free(fs);
                nbd_free(fs->nbd);
                cache_free(fs);
                notices_free(fs);
                polls_free(fs);
                release(fs);
                return r;
        }
        *ret = fs;
        return 0;
}

static void nothing(int sig)
{
}

int fs_serve(struct fs *fs)
{
        struct fuse_loop_config *cfg = fuse_loop_cfg_create();
        struct sigaction wake = {.sa_handler = nothing}; /* no SA_RESTART: fs_stop() needs EINTR */
        int r;

        if (!cfg)
                return -ENOMEM;
        fuse_loop_cfg_set_max_threads(cfg, THREADS);
        fuse_loop_cfg_set_idle_threads(cfg, IDLE_THREADS);
        sigaction(SIGUSR2, &wake, NULL);
        pthread_mutex_lock(&fs->lock);
        fs->server = pthread_self();
        fs->serving = !fs->stopping;
        pthread_mutex_unlock(&fs->lock);
        hold_resume(fs);
        r = fs->serving ? fuse_session_loop_mt(fs->se, cfg) : 0;
        fuse_loop_cfg_destroy(cfg);
        pthread_mutex_lock(&fs->lock);
        fs->serving = false;
        pthread_cond_broadcast(&fs->changed);
        pthread_mutex_unlock(&fs->lock);
        return r < 0 ? r : 0;
}

void fs_stop(struct fs *fs)
{
        WITH_LOCK(&fs->lock);
        fs->stopping = true;
        fuse_session_exit(fs->se);
        /* The loop sleeps on a semaphore; a signal that comes just before would be missed. */
        while (fs->serving) {
                struct timespec until = clock_timespec(clock_now() + 50000);

                pthread_kill(fs->server, SIGUSR2);
                pthread_cond_timedwait(&fs->changed, &fs->lock, &until);
        }
}

void fs_close(struct fs *fs)
{
        pthread_mutex_lock(&fs->lock); /* an fs_stop() still leaving */
        pthread_mutex_unlock(&fs->lock);
        gate_free(TAKE_PTR(fs->hold->gate));
        waits_free(fs);
        copies_wait(fs);
        handles_free(fs);
        nbd_free(fs->nbd);
        cache_free(fs);
        polls_free(fs);
        hold_end(fs);
        fuse_session_destroy(fs->se);
        notices_free(fs); /* now nothing that its helper asked for waits */
        release(fs);
}
