#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/utsname.h>
#include "common/child.h"
#include "common/log.h"
#include "fs/gate.h"
#include "fs/hold.h"
#include "fs/ops.h"
#include "fs/record.h"

/* linux/fuse.h of 6.9 */
enum { NOTIFY_RESEND = 7, NOTIFY_POLL = 1 };

static const char magic[8] = "stratofs";

/* --- what ids are made of ------------------------------------------------------------------ */

static void list_names(struct buf *b, const struct kind *k)
{
        buf_printf(b, "\n%s attrs ", k->name);
        for (unsigned i = 0; i < k->nattrs; i++)
                buf_printf(b, "%s ", k->attrs[i].name);
        buf_printf(b, "\n%s links ", k->name);
        for (unsigned i = 0; i < k->nlinks; i++)
                buf_printf(b, "%s ", k->links[i].name);
        buf_printf(b, "\n%s files ", k->name);
        for (unsigned i = 0; i < k->nfiles; i++)
                buf_printf(b, "%s ", k->files[i].name);
        buf_printf(b, "\n%s states ", k->name);
        for (unsigned i = 0; i < k->nstates; i++)
                buf_printf(b, "%s ", k->states[i].name);
}

static void list_tables(struct buf *b)
{
        for (unsigned i = 0; kinds[i]; i++)
                list_names(b, kinds[i]);
}

/* Node ids count through the tables: what was there must be in the same place, more may follow. */
static bool tables_agree(const char *old, const char *now)
{
        while (*old) {
                size_t n = strcspn(old + 1, "\n") + 1;

                if (strncmp(old, now, n) != 0)
                        return false;
                old += n;
                now += strcspn(now + 1, "\n") + 1;
        }
        return true;
}

/* --- the memory file -------------------------------------------------------------------------- */

static int map(struct hold *h)
{
        void *p = mmap(NULL, sizeof(struct held) + RECORD_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
                       h->memory, 0);

        if (p == MAP_FAILED)
                return -errno;
        h->m = p;
        return 0;
}

static void unmap(struct hold *h)
{
        if (h->m)
                munmap(h->m, sizeof(struct held) + RECORD_SIZE);
        h->m = NULL;
        if (h->memory >= 0)
                close(TAKE_FD(h->memory));
        if (h->device >= 0)
                close(TAKE_FD(h->device));
}

/* Known before INIT: the worker beside the one that has it is to record, or not. */
static bool kernel_resends(void)
{
        struct utsname u;
        int major = 0, minor = 0;

        return uname(&u) == 0 && sscanf(u.release, "%d.%d", &major, &minor) == 2 &&
               (major > 6 || (major == 6 && minor >= 9));
}

static int make_memory(struct hold *h, const char *tables)
{
        int r;

        h->memory = memfd_create("stratofs-session", MFD_CLOEXEC);
        if (h->memory < 0 || ftruncate(h->memory, sizeof(struct held) + RECORD_SIZE) < 0)
                return -errno;
        r = map(h);
        if (r < 0)
                return r;
        memcpy(h->m->magic, magic, sizeof(magic));
        h->m->version = HOLD_VERSION;
        h->m->layout = sizeof(struct held);
        h->m->lives = 1;
        h->m->resends = !h->fs->holder.record && kernel_resends();
        if (getrandom(&h->m->session, sizeof(h->m->session), 0) < 0)
                return -errno;
        h->m->told = clock_now();
        snprintf(h->m->tables, HOLD_TABLES, "%s", tables);
        return 0;
}

/* Unmounted, or cut off by an administrator. */
static bool is_gone(int device)
{
        struct pollfd p = {.fd = device};

        return poll(&p, 1, 0) > 0 && (p.revents & (POLLERR | POLLNVAL));
}

/* Why the session before ours cannot be gone on with; NULL when it can. */
static const char *misfit(struct hold *h, const char *tables)
{
        struct stat st;

        if (is_gone(h->device))
                return "it was unmounted";
        if (fstat(h->memory, &st) < 0 ||
            (uint64_t)st.st_size != sizeof(struct held) + RECORD_SIZE || map(h) < 0 ||
            memcmp(h->m->magic, magic, sizeof(magic)) != 0 || h->m->version != HOLD_VERSION ||
            h->m->layout != sizeof(struct held) || !h->m->reply_len)
                return "it was another version's";
        if (!tables_agree(h->m->tables, tables))
                return "its node ids have other meanings in this version";
        return NULL;
}

/* A mount that nobody will serve any more.  Those inside get ENOTCONN. */
static void take_off(struct fs *fs)
{
        const char *argv[] = {"fusermount3", "-u", "-z", "--", fs->mountpoint, NULL};

        if (umount2(fs->mountpoint, MNT_DETACH) < 0)
                (void)child_check(&(struct child){.argv = argv, .timeout_ms = 10000}, NULL);
}

static void discard(struct fs *fs, const char *why)
{
        struct hold *h = fs->hold;

        bool gone = is_gone(h->device);

        log_warning("%s: mounted anew: the session before this one cannot be gone on with: %s",
                    fs->mountpoint, why);
        if (!gone)
                take_off(fs);
        unmap(h);
        h->adopted = false;
        if (fs->holder.drop)
                fs->holder.drop(fs->arg);
}

uint64_t fs_held_numbers(int memory)
{
        struct held *m;
        uint64_t no;

        if (memory < 0)
                return 0;
        m = mmap(NULL, sizeof(*m), PROT_READ, MAP_SHARED, memory, 0);
        if (m == MAP_FAILED)
                return 0;
        no = memcmp(m->magic, magic, sizeof(magic)) == 0 ? m->max_no : 0;
        munmap(m, sizeof(*m));
        return no;
}

size_t fs_held_uploads(int memory, uint64_t **ret)
{
        struct held *m = MAP_FAILED;
        struct stat st;
        size_t n = 0;

        *ret = NULL;
        if (memory >= 0 && fstat(memory, &st) == 0 && (size_t)st.st_size >= sizeof(*m))
                m = mmap(NULL, sizeof(*m), PROT_READ, MAP_SHARED, memory, 0);
        if (m == MAP_FAILED)
                return 0;
        if (m->version == HOLD_VERSION && m->layout == sizeof(*m))
                *ret = calloc(MIN(m->handles_used, (uint32_t)HOLD_HANDLES) + 1, sizeof(**ret));
        for (unsigned i = 0; *ret && i < MIN(m->handles_used, (uint32_t)HOLD_HANDLES); i++)
                if (m->handles[i].fh && m->handles[i].upload)
                        (*ret)[n++] = m->handles[i].upload;
        munmap(m, sizeof(*m));
        return n;
}

int hold_new(struct fs *fs, const struct fs_config *cfg, struct err **e)
{
        _cleanup_buf_ struct buf tables = {0};
        struct hold *h = fs->hold = calloc(1, sizeof(*h));
        pthread_condattr_t attr;
        const char *why;
        int r;

        if (!h)
                return -ENOMEM;
        h->fs = fs;
        h->memory = fs->holder.memory;
        h->device = fs->holder.device;
        pthread_mutex_init(&h->lock, NULL);
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_cond_init(&h->cond, &attr);
        pthread_condattr_destroy(&attr);
        h->handles = calloc(HOLD_HANDLES, sizeof(*h->handles));
        h->generations = calloc(HOLD_HANDLES, sizeof(*h->generations));
        list_tables(&tables);
        r = workers_new(h);
        if (r == 0)
                r = gate_new(fs, &h->gate);
        if (r < 0 || !h->handles || !h->generations || tables.failed || tables.len >= HOLD_TABLES)
                return r < 0 ? r : -ENOMEM;
        h->adopted = h->memory >= 0 && h->device >= 0;
        if (h->adopted && (why = misfit(h, tables.data)))
                discard(fs, why);
        if (!h->adopted) {
                unmap(h);
                r = make_memory(h, tables.data);
        } else {
                h->m->lives++;
                h->since = h->m->told;
                workers_suspect(h);
        }
        if (r == 0 && fs->holder.keep && !h->m->resends) {
                h->record = record_new((struct record_area *)(h->m + 1));
                r = h->record ? 0 : -ENOMEM;
        }
        return r < 0 ? err_errno(e, r, "memory of the session") : 0;
}

void hold_free(struct fs *fs)
{
        struct hold *h = TAKE_PTR(fs->hold);

        if (!h)
                return;
        watchdog_stop(h);
        gate_free(h->gate);
        if (h->m)
                workers_free(h);
        record_free(h->record);
        unmap(h);
        pthread_cond_destroy(&h->cond);
        pthread_mutex_destroy(&h->lock);
        free(h->handles);
        free(h->generations);
        free(h);
}

/* --- a session goes on ------------------------------------------------------------------------ */

int hold_adopt(struct fs *fs)
{
        struct hold *h = fs->hold;
        struct fuse_buf init = {.size = h->m->init_len};
        char text[sizeof(h->m->init)];
        int r;

        if (!h->adopted)
                return fuse_session_custom_io(fs->se, &hold_io, fuse_session_fd(fs->se));
        r = fuse_session_custom_io(fs->se, &hold_io, h->device);
        if (r < 0)
                return r;
        memcpy(text, h->m->init, sizeof(text));
        init.mem = text;
        h->swallow = h->refused = true;
        fuse_session_process_buf(fs->se, &init);
        h->swallow = false;
        if (!h->refused) {
                h->device = -1; /* the session's */
                return 0;
        }
        discard(fs, "this version wants other things of the kernel");
        return -ESTALE;
}

static void replay(void *arg, void *p, size_t len)
{
        struct fs *fs = arg;
        struct worker *w = worker_self(fs->hold);
        const struct fuse_in_header *in = p;
        int fd = fuse_session_fd(fs->se);

        worker_begin(w, in, true);
        if (worker_refuses(w) || len < in->len) {
                device_refuse(fs->hold, fd, in->unique, -EIO);
        } else {
                fuse_session_process_buf(fs->se, &(struct fuse_buf){.mem = p, .size = len});
        }
        worker_end(w);
}

/* Who polls was promised news by a process that is dead: he asks anew. */
static void wake_pollers(struct fs *fs)
{
        struct {
                struct fuse_out_header head;
                struct fuse_notify_poll_wakeup_out out;
        } news = {.head = {.len = sizeof(news), .error = NOTIFY_POLL}};

        for (unsigned i = 0; i < fs->hold->m->handles_used; i++) {
                struct held_handle *s = &fs->hold->m->handles[i];

                if (!atomic_load(&s->fh) || !s->kh)
                        continue;
                news.out.kh = s->kh;
                if (write(fuse_session_fd(fs->se), &news, sizeof(news)) < 0)
                        log_debug("poll: %m");
        }
}

void hold_resume(struct fs *fs)
{
        const struct fuse_out_header again = {.len = sizeof(again), .error = NOTIFY_RESEND};
        struct hold *h = fs->hold;

        if (!h->adopted)
                return;
        handles_restore(fs);
        cache_forget(fs);
        log_info("%s: process %u of this mount goes on%s", fs->mountpoint, h->m->lives,
                 h->record ? " by the record of requests" : "");
        if (h->record)
                record_replay(h->record, replay, fs);
        else if (write(fuse_session_fd(fs->se), &again, sizeof(again)) != sizeof(again))
                log_error("requests of the process before are lost: %m");
        wake_pollers(fs);
        if (fs->ready)
                fs->ready(fs->arg);
}

void hold_end(struct fs *fs)
{
        int device = fuse_session_fd(fs->se);
        _cleanup_close_ int null = -1;
        bool gone;

        if (fs->holder.drop)
                fs->holder.drop(fs->arg);
        if (!fs->hold->adopted) {
                fuse_session_unmount(fs->se);
                return;
        }
        gone = is_gone(device);
        null = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null < 0 || dup2(null, device) < 0) /* nobody is asked by the unmount; libfuse closes */
                log_warning("end of the session: %m");
        if (!gone)
                take_off(fs);
}
