#include <limits.h>
#include "common/log.h"
#include "fs/ops.h"
#include "fs/record.h"

enum { NONE = UINT32_MAX };

struct record {
        struct record_area *area;
        pthread_mutex_t lock;     /* what follows */
        uint64_t big[RECORD_BIG]; /* the request in it, 0: none */
        bool owned[RECORD_BIG];   /* a worker's */
        uint32_t heads[RECORD_SMALL], next[RECORD_SMALL];
        uint32_t free_small, found;
};

static struct fuse_in_header *big_head(struct record *r, unsigned i)
{
        return (struct fuse_in_header *)r->area->big[i];
}

static bool has_answer(const struct fuse_in_header *in)
{
        return in->opcode != FUSE_FORGET && in->opcode != FUSE_BATCH_FORGET &&
               in->opcode != FUSE_INTERRUPT;
}

static uint32_t *chain(struct record *r, uint64_t unique)
{
        return &r->heads[unique / 2 % RECORD_SMALL];
}

static struct record_small *small_find(struct record *r, uint64_t unique)
{
        for (uint32_t i = *chain(r, unique); i != NONE; i = r->next[i])
                if (r->area->small[i].unique == unique)
                        return &r->area->small[i];
        return NULL;
}

static bool small_drop(struct record *r, uint64_t unique)
{
        for (uint32_t *p = chain(r, unique); *p != NONE; p = &r->next[*p]) {
                uint32_t i = *p;

                if (r->area->small[i].unique != unique)
                        continue;
                atomic_store(&r->area->small[i].unique, 0);
                *p = r->next[i];
                r->next[i] = r->free_small;
                r->free_small = i;
                return true;
        }
        return false;
}

/* false: the table is full. */
static bool small_add(struct record *r, const struct fuse_in_header *in, size_t len, bool cut)
{
        uint32_t i = r->free_small;
        struct record_small *s = &r->area->small[i];

        if (i == NONE)
                return false;
        r->free_small = r->next[i];
        r->area->small_used = MAX(r->area->small_used, i + 1);
        s->len = len;
        s->interrupted = cut;
        memcpy(s->bytes, in, len);
        atomic_store(&s->unique, in->unique);
        r->next[i] = *chain(r, in->unique);
        *chain(r, in->unique) = i;
        return true;
}

static void mark_interrupted(struct record *r, uint64_t unique)
{
        struct record_small *s = small_find(r, unique);

        if (s)
                s->interrupted = 1;
        for (unsigned i = 0; i < RECORD_BIG; i++)
                if (r->big[i] == unique)
                        r->area->interrupted[i] = 1;
}

static void big_clear(struct record *r, unsigned i)
{
        big_head(r, i)->len = 0;
        r->area->interrupted[i] = 0;
        r->big[i] = 0;
}

static int big_take(struct record *r)
{
        for (unsigned i = 0; i < RECORD_BIG; i++) {
                if (r->owned[i] || r->big[i])
                        continue;
                r->area->big_used = MAX(r->area->big_used, i + 1);
                big_clear(r, i);
                r->owned[i] = true;
                return (int)i;
        }
        return -1;
}

/* What a life before ours was at.  One that was being moved is there twice. */
static void take_over(struct record *r)
{
        for (unsigned i = 0; i < r->area->big_used; i++) {
                const struct fuse_in_header *in = big_head(r, i);
                const struct fuse_interrupt_in *cut = (const void *)(in + 1);

                if (in->len && in->opcode == FUSE_INTERRUPT)
                        mark_interrupted(r, cut->unique);
                if (!in->len || !has_answer(in)) {
                        big_clear(r, i);
                        continue;
                }
                small_drop(r, in->unique);
                r->big[i] = in->unique;
                r->found++;
        }
}

struct record *record_new(struct record_area *area)
{
        struct record *r = calloc(1, sizeof(*r));

        if (!r)
                return NULL;
        r->area = area;
        r->free_small = NONE;
        pthread_mutex_init(&r->lock, NULL);
        for (uint32_t i = 0; i < RECORD_SMALL; i++)
                r->heads[i] = NONE;
        for (uint32_t i = RECORD_SMALL; i-- > 0;) {
                uint64_t unique = i < area->small_used ? area->small[i].unique : 0;
                uint32_t *list = unique ? chain(r, unique) : &r->free_small;

                r->next[i] = *list;
                *list = i;
                r->found += unique != 0;
        }
        take_over(r);
        return r;
}

void record_free(struct record *r)
{
        if (r)
                pthread_mutex_destroy(&r->lock);
        free(r);
}

static int buffer_of(const struct worker *w)
{
        return (int)(intptr_t)w->buffer - 1;
}

/* The worker's last request: done, or parked. */
static void settle(struct record *r, struct worker *w)
{
        int i = buffer_of(w);
        struct fuse_in_header *in;
        size_t len;

        if (i < 0)
                return;
        in = big_head(r, (unsigned)i);
        if (!r->big[i] || !has_answer(in)) {
                big_clear(r, (unsigned)i);
                return;
        }
        /* of a write whose bytes find no place the head is kept: it can be refused */
        len = in->len > RECORD_SMALL_BYTES ? 0 : in->len;
        if (len && small_add(r, in, len, r->area->interrupted[i])) {
                big_clear(r, (unsigned)i);
                return;
        }
        r->owned[i] = false;
        w->buffer = NULL;
}

ssize_t request_record_read(struct record *r, struct worker *w, int fd, void *buf, size_t len)
{
        struct fuse_in_header *in;
        ssize_t n;
        int i;

        pthread_mutex_lock(&r->lock);
        settle(r, w);
        if (!w->buffer)
                w->buffer = (void *)(intptr_t)(big_take(r) + 1);
        pthread_mutex_unlock(&r->lock);
        i = buffer_of(w);
        if (i < 0) { /* as many as there are wait for their answers: so do those that come */
                usleep(1000);
                errno = EINTR;
                return -1;
        }
        in = big_head(r, (unsigned)i);
        worker_ready(w, in, RECORD_BIG_BYTES);
        n = read(fd, in, MIN(len, RECORD_BIG_BYTES));
        if (n < (ssize_t)sizeof(*in))
                return n;
        memcpy(buf, in, (size_t)n);
        WITH_LOCK(&r->lock);
        if (has_answer(in))
                r->big[i] = in->unique;
        else if (in->opcode == FUSE_INTERRUPT)
                mark_interrupted(r, ((const struct fuse_interrupt_in *)(in + 1))->unique);
        return n;
}

void record_answered(struct record *r, uint64_t unique)
{
        WITH_LOCK(&r->lock);
        if (small_drop(r, unique))
                return;
        for (unsigned i = 0; i < RECORD_BIG; i++)
                if (r->big[i] == unique)
                        big_clear(r, i);
}

void record_release(struct record *r, struct worker *w)
{
        int i;

        WITH_LOCK(&r->lock);
        settle(r, w);
        i = buffer_of(w);
        if (i >= 0)
                r->owned[i] = false;
        w->buffer = NULL;
}

/* --- of a life before ours -------------------------------------------------------------------- */

struct found {
        uint64_t unique;
        const void *p;
        size_t len;
        const uint32_t *interrupted;
};

static int by_unique(const void *a, const void *b)
{
        const struct found *x = a, *y = b;

        return x->unique < y->unique ? -1 : x->unique > y->unique;
}

static size_t collect(struct record *r, struct found *v)
{
        size_t n = 0;

        for (uint32_t i = 0; i < r->area->small_used; i++) {
                struct record_small *s = &r->area->small[i];

                if (s->unique)
                        v[n++] = (struct found){s->unique, s->bytes, s->len, &s->interrupted};
        }
        for (unsigned i = 0; i < RECORD_BIG; i++)
                if (r->big[i])
                        v[n++] = (struct found){r->big[i], r->area->big[i], big_head(r, i)->len,
                                                &r->area->interrupted[i]};
        qsort(v, n, sizeof(*v), by_unique);
        return n;
}

void record_replay(struct record *r, void (*each)(void *arg, void *p, size_t len), void *arg)
{
        struct {
                struct fuse_in_header head;
                struct fuse_interrupt_in in;
        } cut = {.head = {.len = sizeof(cut), .opcode = FUSE_INTERRUPT}};
        struct found *v = r->found ? calloc(r->found, sizeof(*v)) : NULL;
        size_t n = v ? collect(r, v) : 0;
        char *p = v ? malloc(RECORD_BIG_BYTES) : NULL;

        if (r->found && !p)
                log_error("%u requests of the process before are lost: no memory", r->found);
        for (size_t i = 0; p && i < n; i++) {
                bool interrupted = *v[i].interrupted;

                memcpy(p, v[i].p, v[i].len);
                each(arg, p, v[i].len);
                if (!interrupted)
                        continue;
                cut.in.unique = v[i].unique;
                cut.head.unique = v[i].unique | 1;
                each(arg, &cut, sizeof(cut));
        }
        free(p);
        free(v);
}
