/* .wait/STATE and .follow: reads that are answered when an object gets there, or has an event.
 *
 * A parked read holds no thread.  It is known by a number in a table: whoever takes it out of the
 * table answers it, so that a state reached and an interrupt at the same moment cannot both. */
#include <fcntl.h>
#include "fs/ephemeral.h"
#include "fs/hold.h"
#include "fs/ops.h"

struct wait_key;

struct wait {
        uint64_t id;
        fuse_req_t req;
        fuse_ino_t ino;
        struct waiter *waiter; /* NULL until control has it */
        struct wait_key *key;  /* freed by whoever ends the waiter */
        bool interrupted;      /* before that */
        struct handle
                *follow; /* of .follow; NULL: .wait.  Open as long as its read is not answered */
        size_t size;     /* of that read */
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

static void begin(fuse_req_t req, struct handle *h, const struct node *n, size_t size);

static void answer(struct wait *w, int r)
{
        char line[NAME_SIZE + 1];
        int n = snprintf(line, sizeof(line), "%s\n", w->state);

        if (w->follow && r == -ENOENT) { /* the object's end is the stream's */
                fuse_reply_buf(w->req, NULL, 0);
                free(w);
                return;
        }
        if (w->follow && r == 0) { /* what came may be another object's: then it waits on */
                follow_read(w->req, w->follow, w->size);
                free(w);
                return;
        }
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

static struct wait *park(struct waits *t, fuse_req_t req, struct handle *h, const struct node *n,
                         size_t size)
{
        struct wait *w = calloc(1, sizeof(*w));

        if (!w)
                return NULL;
        w->req = req;
        w->ino = h->ino;
        w->follow = n->type == NODE_FOLLOW ? h : NULL;
        w->size = size;
        if (!w->follow)
                snprintf(w->state, sizeof(w->state), "%s", wait_state(n));
        WITH_LOCK(&t->lock);
        w->id = ++t->next;
        HASH_ADD(hh, t->by_id, id, sizeof(w->id), w);
        return w;
}

/* Microseconds that are left of a time-out; a death of the daemon does not begin it anew. */
static int64_t time_left(struct fs *fs, struct handle *h, const struct node *n)
{
        int64_t now = clock_now(), all = n->seconds * INT64_C(1000000);

        if (!all)
                return 0;
        if (!worker_self(fs->hold)->again || !h->held->deadline)
                h->held->deadline = now + all;
        return MIN(MAX(1, h->held->deadline - now), all);
}

static void begin(fuse_req_t req, struct handle *h, const struct node *n, size_t size)
{
        struct fs *fs = fs_of(req);
        struct caller who = fs_caller(req);
        struct wait_key *key = calloc(1, sizeof(*key));
        struct wait *w = key ? park(fs->waits, req, h, n, size) : NULL;
        struct waiter *waiter = NULL;
        struct err *e = NULL;
        uint64_t id, cursor = h->next;
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
        r = n->type == NODE_FOLLOW ? control_wait_event(fs->control, &who, n->no, cursor, reached,
                                                        key, &waiter, &e)
                                   : control_wait(fs->control, &who, n->no, wait_state(n),
                                                  time_left(fs, h, n), reached, key, &waiter, &e);
        if (r < 0) {
                free(key);
                w = take(fs->waits, id);
                if (w && !(w->follow && r == -ENOENT)) {
                        fs_fail(req, "read", h->ino, NULL, r, e);
                        free(w);
                        return;
                }
                err_free(e);
                if (w)
                        answer(w, r);
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
                begin(req, h, &n, size);
        else if (reached_already)
                fuse_reply_buf(req, line, (size_t)len);
        else
                fuse_reply_err(req, EAGAIN);
}

/* --- .follow ------------------------------------------------------------------------------- */

int follow_open(struct fs *fs, struct handle *h, struct err **e)
{
        struct node n;
        int r;

        if ((h->flags & O_ACCMODE) != O_RDONLY)
                return err_set(e, -EACCES, "this file is read-only");
        r = poll_watch(fs, h);
        if (r < 0)
                return r;
        h->next = UINT64_MAX;
        control_rdlock(fs->control);
        r = node_get(fs, h->ino, &n);
        if (!r)
                render_events_from(fs->control, n.o, &h->next, &h->text);
        control_unlock(fs->control);
        return r;
}

/* The log began anew with this process: all of it is new. */
int follow_again(struct fs *fs, struct handle *h)
{
        h->next = 0;
        h->cursor = 0;
        return poll_watch(fs, h);
}

/* What is new goes behind what was not read yet.  -ENOENT: the object is gone; h->lock held. */
static int follow_fetch(struct fs *fs, struct handle *h, struct node *n)
{
        int r;

        if (h->cursor < h->text.len)
                return 0;
        buf_clear(&h->text);
        h->cursor = 0;
        control_rdlock(fs->control);
        r = node_get(fs, h->ino, n);
        if (!r)
                render_events_from(fs->control, n->o, &h->next, &h->text);
        control_unlock(fs->control);
        return r;
}

bool follow_ready(struct fs *fs, struct handle *h)
{
        struct node n;

        poll_seen(fs, h);
        WITH_LOCK(&h->lock);
        return follow_fetch(fs, h, &n) < 0 || h->text.len;
}

void follow_read(fuse_req_t req, struct handle *h, size_t size)
{
        struct fs *fs = fs_of(req);
        _cleanup_buf_ struct buf out = {0};
        struct node n;
        int r;

        pthread_mutex_lock(&h->lock);
        r = follow_fetch(fs, h, &n);
        if (!r && h->cursor < h->text.len) {
                buf_add(&out, h->text.data + h->cursor, MIN(size, h->text.len - h->cursor));
                h->cursor += out.len;
        }
        pthread_mutex_unlock(&h->lock);
        /* an answer lets the file be closed: the handle is not ours any more after it */
        if (out.failed)
                fuse_reply_err(req, ENOMEM);
        else if (r || out.len)
                fuse_reply_buf(req, out.data, out.len);
        else if (h->flags & O_NONBLOCK)
                fuse_reply_err(req, EAGAIN);
        else
                begin(req, h, &n, size);
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
