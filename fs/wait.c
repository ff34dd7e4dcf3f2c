/* .wait/STATE: reads that are answered when an object gets there; and poll(2).
 *
 * A parked read holds no thread.  It is known by a number in a table: whoever takes it out of the
 * table answers it, so that a state reached and an interrupt at the same moment cannot both. */
#include <fcntl.h>
#include <poll.h>
#include "fs/ephemeral.h"
#include "fs/ops.h"

struct wait_key;

struct wait {
        uint64_t id;
        fuse_req_t req;
        fuse_ino_t ino;
        struct waiter *waiter; /* NULL until control has it */
        struct wait_key *key;  /* freed by whoever ends the waiter */
        bool interrupted;      /* before that */
        char state[NAME_SIZE];
        UT_hash_handle hh;
};

struct waits {
        struct fs *fs;
        pthread_mutex_t lock;
        struct wait *by_id;
        uint64_t next;
};

/* The callbacks carry a number, not a pointer: what it named may have ended. */
struct wait_key {
        struct waits *table;
        uint64_t id;
};

int waits_new(struct waits **ret)
{
        struct waits *t = calloc(1, sizeof(*t));

        if (!t)
                return -ENOMEM;
        pthread_mutex_init(&t->lock, NULL);
        *ret = t;
        return 0;
}

/* Out of the table; NULL when another was first. */
static struct wait *take(struct waits *t, uint64_t id)
{
        struct wait *w;

        WITH_LOCK(&t->lock);
        HASH_FIND(hh, t->by_id, &id, sizeof(id), w);
        if (w)
                HASH_DEL(t->by_id, w);
        return w;
}

static const char *why(int r)
{
        return r == -ETIMEDOUT ? "the time is over; what was begun goes on"
               : r == -ENOENT  ? "the object is gone"
                               : "it went to another state that nothing leaves by itself: see its "
                                 "`state` and `error`";
}

/* The words of a wait that failed go to the caller's and the tenant's files only: the object's
 * own `error` says what happened to it. */
static void record(struct wait *w, int r)
{
        struct fs *fs = fs_of(w->req);
        struct caller who = fs_caller(w->req);
        _cleanup_err_ struct err *e = NULL;
        _cleanup_buf_ struct buf path = {0};
        uint64_t tenant = 0;
        struct node n;

        control_rdlock(fs->control);
        if (!node_get(fs, w->ino, &n)) {
                node_path(fs, &n, &path);
                tenant = node_tenant(&n);
        }
        control_unlock(fs->control);
        err_set(&e, r, "%s", why(r));
        control_record(fs->control, &who, "read", buf_str(&path), 0, tenant, r, e);
}

static void answer(struct wait *w, int r)
{
        char line[NAME_SIZE + 1];
        int n = snprintf(line, sizeof(line), "%s\n", w->state);

        if (r < 0 && r != -EINTR)
                record(w, r);
        if (r < 0)
                fuse_reply_err(w->req, fs_errno(r));
        else
                fuse_reply_buf(w->req, line, (size_t)n);
        free(w);
}

static void reached(void *arg, int r)
{
        struct wait_key *key = arg;
        struct wait *w = take(key->table, key->id);

        free(key);
        if (w)
                answer(w, r);
}

/* No callback comes after a cancel that is true. */
static void cancel(struct fs *fs, struct wait *w)
{
        if (control_wait_cancel(fs->control, w->waiter))
                free(w->key);
}

/* Called by libfuse with its request alive; the table says whether we still owe an answer. */
static void interrupted(fuse_req_t req, void *arg)
{
        struct fs *fs = fs_of(req);
        struct waits *t = fs->waits;
        uint64_t id = (uintptr_t)arg;
        struct wait *w;

        pthread_mutex_lock(&t->lock);
        HASH_FIND(hh, t->by_id, &id, sizeof(id), w);
        if (w && !w->waiter) {
                w->interrupted = true; /* wait_read() sees to it */
                w = NULL;
        } else if (w) {
                HASH_DEL(t->by_id, w);
        }
        pthread_mutex_unlock(&t->lock);
        if (!w)
                return;
        cancel(fs, w);
        answer(w, -EINTR);
}

static struct wait *park(struct waits *t, fuse_req_t req, struct handle *h, const char *state)
{
        struct wait *w = calloc(1, sizeof(*w));

        if (!w)
                return NULL;
        w->req = req;
        w->ino = h->ino;
        snprintf(w->state, sizeof(w->state), "%s", state);
        WITH_LOCK(&t->lock);
        w->id = ++t->next;
        HASH_ADD(hh, t->by_id, id, sizeof(w->id), w);
        return w;
}

static void begin(fuse_req_t req, struct handle *h, const struct node *n)
{
        struct fs *fs = fs_of(req);
        struct caller who = fs_caller(req);
        struct wait_key *key = calloc(1, sizeof(*key));
        struct wait *w = key ? park(fs->waits, req, h, wait_state(n)) : NULL;
        struct waiter *waiter = NULL;
        struct err *e = NULL;
        uint64_t id;
        bool cut = false;
        int r;

        if (!w) {
                free(key);
                fuse_reply_err(req, ENOMEM);
                return;
        }
        id = w->id; /* w may be answered and gone from here on */
        *key = (struct wait_key){.table = fs->waits, .id = id};
        fuse_req_interrupt_func(req, interrupted, (void *)(uintptr_t)id);
        r = control_wait(fs->control, &who, n->no, wait_state(n), n->seconds * INT64_C(1000000),
                         reached, key, &waiter, &e);
        if (r < 0) {
                free(key);
                w = take(fs->waits, id);
                if (!w)
                        err_free(e);
                else
                        fs_fail(req, "read", h->ino, NULL, r, e);
                free(w);
                return;
        }
        pthread_mutex_lock(&fs->waits->lock);
        HASH_FIND(hh, fs->waits->by_id, &id, sizeof(id), w);
        if (w) {
                w->waiter = waiter;
                w->key = key;
                cut = w->interrupted;
                if (cut)
                        HASH_DEL(fs->waits->by_id, w);
        }
        pthread_mutex_unlock(&fs->waits->lock);
        if (cut) {
                cancel(fs, w);
                answer(w, -EINTR);
        }
}

void wait_read(fuse_req_t req, struct handle *h, size_t size, off_t off)
{
        struct fs *fs = fs_of(req);
        bool reached_already = false;
        char line[NAME_SIZE + 1];
        struct node n;
        int len = 0, r;

        if (off) {
                fuse_reply_buf(req, NULL, 0);
                return;
        }
        control_rdlock(fs->control);
        r = node_get(fs, h->ino, &n);
        if (!r) {
                reached_already = n.o && streq(object_state(n.o), wait_state(&n));
                len = snprintf(line, sizeof(line), "%s\n", wait_state(&n));
        }
        control_unlock(fs->control);
        if (!r && !n.o)
                fuse_reply_buf(req, line, (size_t)len); /* gone between the open and the read */
        else if (r)
                fuse_reply_err(req, fs_errno(r));
        else if (!(h->flags & O_NONBLOCK))
                begin(req, h, &n);
        else if (reached_already)
                fuse_reply_buf(req, line, (size_t)len);
        else
                fuse_reply_err(req, EAGAIN);
}

void waits_free(struct fs *fs)
{
        struct waits *t = fs->waits;
        struct wait *w, *next;

        if (!t)
                return;
        HASH_ITER (hh, t->by_id, w, next) {
                HASH_DEL(t->by_id, w);
                if (w->waiter)
                        cancel(fs, w);
                answer(w, -EINTR);
        }
        pthread_mutex_destroy(&t->lock);
        free(t);
}

/* --- poll(2) ------------------------------------------------------------------------------ */

struct poll {
        struct poll *prev, *next;
        uint64_t no; /* changes of this object; 0: any (a tenant's log) */
        bool changed;
        struct fuse_pollhandle *ph;
};

struct polls {
        pthread_mutex_t lock;
        struct poll *first;
};

void polls_changed(struct fs *fs, uint64_t no)
{
        WITH_LOCK(&fs->polls->lock);
        for (struct poll *p = fs->polls->first; p; p = p->next) {
                if (p->no && p->no != no)
                        continue;
                p->changed = true;
                if (!p->ph)
                        continue;
                fuse_lowlevel_notify_poll(p->ph);
                fuse_pollhandle_destroy(p->ph);
                p->ph = NULL;
        }
}

int polls_new(struct fs *fs)
{
        fs->polls = calloc(1, sizeof(*fs->polls));
        if (!fs->polls)
                return -ENOMEM;
        pthread_mutex_init(&fs->polls->lock, NULL);
        return 0;
}

void polls_free(struct fs *fs)
{
        if (!fs->polls)
                return;
        pthread_mutex_destroy(&fs->polls->lock);
        free(fs->polls);
}

int poll_watch(struct fs *fs, struct handle *h)
{
        bool tenant = h->type == NODE_ERRORS || (h->type == NODE_EVENTS && h->kind == &kind_tenant);
        struct poll *p;

        if (h->type != NODE_STATE && h->type != NODE_EVENTS && h->type != NODE_ERROR && !tenant)
                return 0;
        p = calloc(1, sizeof(*p));
        if (!p)
                return -ENOMEM;
        p->no = tenant ? 0 : h->no;
        h->poll = p;
        WITH_LOCK(&fs->polls->lock);
        p->next = fs->polls->first;
        if (p->next)
                p->next->prev = p;
        fs->polls->first = p;
        return 0;
}

void poll_drop(struct fs *fs, struct handle *h)
{
        struct poll *p = h->poll;

        if (!p)
                return;
        pthread_mutex_lock(&fs->polls->lock);
        if (p->next)
                p->next->prev = p->prev;
        if (p->prev)
                p->prev->next = p->next;
        else
                fs->polls->first = p->next;
        pthread_mutex_unlock(&fs->polls->lock);
        if (p->ph)
                fuse_pollhandle_destroy(p->ph);
        free(p);
        h->poll = NULL;
}

void poll_seen(struct fs *fs, struct handle *h)
{
        if (!h->poll)
                return;
        WITH_LOCK(&fs->polls->lock);
        h->poll->changed = false;
}

void op_poll(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct fuse_pollhandle *ph)
{
        struct handle *h = handle_of(fi);
        struct fs *fs = fs_of(req);
        unsigned revents = POLLIN | POLLOUT;

        if (h->poll) {
                WITH_LOCK(&fs->polls->lock);
                if (h->poll->changed)
                        revents |= POLLPRI | POLLERR;
                if (ph) {
                        struct fuse_pollhandle *old = h->poll->ph;

                        h->poll->ph = ph;
                        ph = old;
                }
        }
        if (ph)
                fuse_pollhandle_destroy(ph);
        fuse_reply_poll(req, revents);
}
