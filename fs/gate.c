#include "fs/gate.h"

#include <utlist.h>

#include "common/log.h"
#include "fs/hold.h"
#include "fs/ops.h"

enum {
        HELD_BYTES = 240,           /* of one; longer ones carry bytes of files and pass */
        NEIGHBOUR_US = 1000 * 1000, /* so long after its last request a user counts as asking */
};

struct held_request {
        struct held_request *prev, *next;
        size_t len;
        _Alignas(8) char bytes[HELD_BYTES];
};

/* A user with requests in the daemon. */
struct gate_user {
        uid_t uid;
        unsigned active, nheld;
        struct held_request *held;
        bool queued; /* in turns: something is held, and active is below the share */
        struct gate_user *prev, *next;
        UT_hash_handle hh;
};

struct gate {
        struct fs *fs;
        pthread_mutex_t lock; /* what follows */
        pthread_cond_t cond;
        struct gate_user *users, *turns;
        unsigned nheld;
        uid_t last;                     /* who asked last */
        int64_t last_seen, others_seen; /* that one, and the one before who was another */
        pthread_t lanes[GATE_LANES];
        unsigned nlanes;
        bool stopping;
};

int gate_new(struct fs *fs, struct gate **ret)
{
        struct gate *g = calloc(1, sizeof(*g));

        if (!g)
                return -ENOMEM;
        g->fs = fs;
        g->last_seen = g->others_seen = -NEIGHBOUR_US;
        pthread_mutex_init(&g->lock, NULL);
        pthread_cond_init(&g->cond, NULL);
        *ret = g;
        return 0;
}

/* The kernel's own, and what must not wait for anything. */
static bool passes(const struct fuse_in_header *in)
{
        switch (in->opcode) {
        case FUSE_INIT:
        case FUSE_DESTROY:
        case FUSE_FORGET:
        case FUSE_BATCH_FORGET:
        case FUSE_INTERRUPT:
        case FUSE_RELEASE:
        case FUSE_RELEASEDIR:
                return true;
        default:
                return false;
        }
}

/* Lock held. */
static bool is_crowded(const struct gate *g)
{
        return clock_mono() - g->others_seen < NEIGHBOUR_US;
}

/* Notes that uid asks; whether another does, too.  Lock held. */
static bool has_neighbours(struct gate *g, uid_t uid)
{
        if (uid != g->last) {
                g->others_seen = g->last_seen;
                g->last = uid;
        }
        g->last_seen = clock_mono();
        return is_crowded(g);
}

static struct gate_user *user_of(struct gate *g, uid_t uid)
{
        struct gate_user *u;

        HASH_FIND(hh, g->users, &uid, sizeof(uid), u);
        if (u)
                return u;
        u = calloc(1, sizeof(*u));
        if (!u)
                return NULL;
        u->uid = uid;
        HASH_ADD(hh, g->users, uid, sizeof(u->uid), u);
        return u;
}

/* Something of u began, ended or was held: whether a lane may have it, whether u is still known.
 * Lock held. */
static void settle(struct gate *g, struct gate_user *u)
{
        bool turn = u->nheld && (u->active < GATE_SHARE || !is_crowded(g));

        if (turn && !u->queued) {
                DL_APPEND(g->turns, u);
                pthread_cond_signal(&g->cond);
        } else if (!turn && u->queued) {
                DL_DELETE(g->turns, u);
        }
        u->queued = turn;
        if (u->active || u->nheld)
                return;
        HASH_DEL(g->users, u);
        free(u);
}

/* The next of what is held, its user the last in turn; NULL: nothing.  Lock held. */
static struct held_request *take(struct gate *g, struct worker *w)
{
        struct gate_user *u = g->turns;
        struct held_request *r;

        if (!u)
                return NULL;
        r = u->held;
        DL_DELETE(u->held, r);
        DL_DELETE(g->turns, u);
        u->queued = false;
        g->nheld--;
        u->nheld--;
        u->active++;
        w->gated = u;
        settle(g, u);
        return r;
}

static void serve(struct gate *g, struct worker *w, struct held_request *r)
{
        struct fs *fs = g->fs;
        const struct fuse_in_header *in = (const void *)r->bytes;

        worker_begin(w, in, in->unique & UNIQUE_RESENT);
        if (worker_refuses(w))
                device_refuse(fs->hold, fuse_session_fd(fs->se), in->unique, -EIO);
        else
                fuse_session_process_buf(fs->se,
                                         &(struct fuse_buf){.mem = r->bytes, .size = r->len});
        worker_end(w);
        gate_leave(g, w);
        free(r);
}

static void *lane(void *arg)
{
        struct gate *g = arg;
        struct worker *w = worker_self(g->fs->hold);
        struct held_request *r;

        pthread_mutex_lock(&g->lock);
        for (;;) {
                r = take(g, w);
                if (!r && g->stopping && !g->nheld)
                        break;
                if (!r) {
                        pthread_cond_wait(&g->cond, &g->lock);
                        continue;
                }
                pthread_mutex_unlock(&g->lock);
                serve(g, w, r);
                pthread_mutex_lock(&g->lock);
        }
        pthread_mutex_unlock(&g->lock);
        return NULL;
}

/* There are none before they are wanted.  Lock held. */
static bool have_lanes(struct gate *g)
{
        while (g->nlanes < GATE_LANES && pthread_create(&g->lanes[g->nlanes], NULL, lane, g) == 0)
                g->nlanes++;
        return g->nlanes > 0;
}

static int hold_back(struct gate *g, struct gate_user *u, const struct fuse_in_header *in, size_t n)
{
        struct held_request *r;

        if (u->nheld >= GATE_HELD_A_USER || g->nheld >= GATE_HELD)
                return -EAGAIN;
        r = have_lanes(g) ? malloc(sizeof(*r)) : NULL;
        if (!r)
                return -EAGAIN;
        r->len = n;
        memcpy(r->bytes, in, n);
        DL_APPEND(u->held, r);
        g->nheld++;
        u->nheld++;
        settle(g, u);
        return 1;
}

int gate_enter(struct gate *g, struct worker *w, const struct fuse_in_header *in, size_t n)
{
        struct gate_user *u;
        bool crowded;

        if (passes(in))
                return 0;
        WITH_LOCK(&g->lock);
        crowded = has_neighbours(g, in->uid);
        u = in->uid && n <= HELD_BYTES ? user_of(g, in->uid) : NULL;
        if (!u)
                return 0;
        if (crowded && (u->active >= GATE_SHARE || u->nheld)) /* none overtakes what waits */
                return hold_back(g, u, in, n);
        u->active++;
        w->gated = u;
        settle(g, u);
        return 0;
}

void gate_leave(struct gate *g, struct worker *w)
{
        struct gate_user *u = w->gated;

        if (!u)
                return;
        w->gated = NULL;
        WITH_LOCK(&g->lock);
        u->active--;
        settle(g, u);
        if (g->stopping)
                pthread_cond_broadcast(&g->cond);
}

void gate_free(struct gate *g)
{
        if (!g)
                return;
        pthread_mutex_lock(&g->lock);
        g->stopping = true;
        pthread_cond_broadcast(&g->cond);
        pthread_mutex_unlock(&g->lock);
        for (unsigned i = 0; i < g->nlanes; i++)
                pthread_join(g->lanes[i], NULL);
        pthread_cond_destroy(&g->cond);
        pthread_mutex_destroy(&g->lock);
        free(g);
}
