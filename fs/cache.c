/* What the kernel keeps of the tree, and how it is taken back.
 *
 * Attributes and names live for LIFE.  Whatever is handed out is marked in the object (`told`); the
 * change that makes it void finds the marks and, on the thread that learnt of the commit and before
 * anybody else does, has the kernel drop those attributes.  That takes no lock of the kernel's that
 * a request could hold, so it cannot deadlock, whoever waits for whom: not even when the daemon is
 * killed inside it.  notify_inval_entry and notify_delete do take the directory's lock, and are not
 * used:
 *
 *   - a name that goes by a request of the kernel's, the kernel drops itself;
 *   - a name whose object is gone leads to a node that answers ESTALE, and the kernel looks the
 * name up again (fs_gone());
 *   - any other name that goes (a volume another tenant accepted) makes void every name that the
 *     kernel has: FUSE_NOTIFY_INC_EPOCH.  A kernel that cannot do that keeps names for a second.
 *
 * Names that are not there are not remembered at all, so what is new is seen at once.
 *
 * The kernel drops attributes of nodes that it knows.  An answer to GETATTR is about a known node,
 * and the kernel refuses one that was overtaken.  The answer to a LOOKUP may make the node known
 * after the change went by, so it carries no life.  A listing does, or `ls -l` would ask for each
 * object again: for objects that nobody has changed for QUIET.  Should one change just then, while
 * the listing is under way, the notifier's thread says once more what found no node, in two rounds,
 * when the answers that were under way have arrived.
 *
 * A listing that the kernel keeps it compares by the directory's time, which is another one after
 * every change (struct collection).  But an answer that was under way is taken for one of the new
 * time, so a listing is kept only when it has been QUIET, too. */
#include <unistd.h>
#include "common/log.h"
#include "fs/hold.h"
#include "fs/ops.h"

enum { LIFE = 3600, LIFE_OF_NAMES = 1, QUIET = 5000000, REPEATS = 4096, ROUNDS = 2, RENAMES = 64 };
#define TOLD_LATE INT64_C(1000000)         /* usec that the clock may have been set back */
#define TOLD_LATE_SHARED INT64_C(60000000) /* that other hosts' may be behind, and their news */
enum { NOTIFY_INC_EPOCH = 8, EPOCH_MINOR = 44 }; /* linux/fuse.h of 6.16 */

/* What is to be dropped again, in order of time. */
struct repeats {
        struct repeat {
                uint64_t no; /* whose attributes; 0: all names */
                int64_t due; /* monotonic usec */
        } v[REPEATS];
        size_t first, n;
};

struct cache {
        struct fs *fs;
        atomic_bool epochs;   /* the kernel has them */
        atomic_bool live;     /* INIT is done */
        pthread_mutex_t lock; /* what follows */
        pthread_cond_t cond;
        pthread_t thread;
        bool started, stopping;
        bool sweep; /* repeats were dropped: every object is said again */
        struct repeats rounds[ROUNDS];
        uint64_t renames[RENAMES]; /* objects, 0: free */
};

static const int64_t delays[ROUNDS] = {10000, 1000000};

/* --- what is handed out ---------------------------------------------------------------------- */

static unsigned long long file_mark(unsigned slot)
{
        return 4ull << slot % 62;
}

/* Whether an attribute's text, and so its size, is made of nothing but its object. */
static bool attr_kept(const struct node *n)
{
        switch (n->type) {
        case NODE_ATTR:
                return !n->kind->attrs[n->index].changes;
        case NODE_HELP:
        case NODE_VERSION:
        case NODE_ID:
        case NODE_STATE:
        case NODE_CREATED:
        case NODE_UPDATED:
        case NODE_CTL:
        case NODE_DATALINK:
                return true;
        default:
                return node_is_dir(n->type);
        }
}

static bool quiet(int64_t changed)
{
        return clock_now() - changed > QUIET;
}

double cache_attr(struct fs *fs, const struct node *n, enum cache_for why)
{
        struct collection *l;

        switch (n->type) {
        case NODE_IDS:
        case NODE_NEW:
        case NODE_KIND_HELP:
        case NODE_USER:
                return LIFE; /* never another */
        case NODE_COLLECTION:
                l = model_collection(fs->control, n->o, n->kind);
                if (!l || why != CACHE_GETATTR)
                        return 0;
                atomic_fetch_or(&l->told, TOLD_SELF);
                return LIFE;
        case NODE_OBJECT:
        case NODE_ROOT:
                if (why == CACHE_LOOKUP || (why == CACHE_LISTING && !quiet(n->o->updated)))
                        return 0;
                atomic_fetch_or(&n->o->told, TOLD_SELF);
                return LIFE;
        default:
                if (why != CACHE_GETATTR || !n->o || !attr_kept(n))
                        return 0;
                atomic_fetch_or(&n->o->told, file_mark(n->ino & ((1u << SLOT_BITS) - 1)));
                return LIFE;
        }
}

double cache_entry(struct fs *fs, const struct node *n, enum cache_for why)
{
        if (n->type == NODE_OBJECT) {
                if (n->o->nameless || (why == CACHE_LISTING && !quiet(n->o->updated)))
                        return 0;
                atomic_fetch_or(&n->o->told, TOLD_NAME);
                return atomic_load(&fs->cache->epochs) ? LIFE : LIFE_OF_NAMES;
        }
        if (n->type == NODE_META || n->type == NODE_TEMPLINK)
                return 0;
        return node_is_dir(n->type) || node_is_text(n->type) || n->type == NODE_DATALINK ? LIFE : 0;
}

bool cache_listing(struct fs *fs, const struct node *n)
{
        struct collection *l;

        if (n->type == NODE_COLLECTION) {
                l = model_collection(fs->control, n->o, n->kind);
                return l && quiet(l->changed);
        }
        return n->type == NODE_ROOT || n->type == NODE_ADMIN || n->type == NODE_FOLDER;
}

/* --- what is taken back ---------------------------------------------------------------------- */

/* Whether the kernel knew it. */
static bool drop_attr(struct cache *c, fuse_ino_t ino)
{
        return fuse_lowlevel_notify_inval_inode(c->fs->se, ino, -1, 0) != -ENOENT;
}

static void drop_range(struct cache *c, uint64_t no, uint64_t told, unsigned slot, unsigned n)
{
        for (unsigned end = slot + n; slot < end; slot++)
                if (told & file_mark(slot))
                        drop_attr(c, INO_OF(no, slot));
}

static void drop_files(struct cache *c, uint64_t no, const struct kind *k, uint64_t told)
{
        drop_range(c, no, told, SLOT_ID, SLOT_ROOT_FIRST - SLOT_ID);
        if (no == OBJECT_CLOUD)
                drop_range(c, no, told, SLOT_ROOT_FIRST, SLOT_BYTES - SLOT_ROOT_FIRST + 1);
        drop_range(c, no, told, SLOT_ATTRS, k->nattrs);
        drop_range(c, no, told, SLOT_LINKS, k->nlinks);
        drop_range(c, no, told, SLOT_FILES, k->nfiles);
        drop_range(c, no, told, SLOT_FOLDERS, k->nfiles);
}

/* Every name the kernel has is asked for again at its next use. */
static void drop_names(struct cache *c)
{
        struct {
                uint32_t len;
                int32_t code;
                uint64_t unique;
        } head = {.len = sizeof(head), .code = NOTIFY_INC_EPOCH};

        if (atomic_load(&c->epochs) &&
            write(fuse_session_fd(c->fs->se), &head, sizeof(head)) != sizeof(head))
                log_debug("the kernel's names: %m");
}

static void repeat(struct cache *c, unsigned round, uint64_t no)
{
        struct repeats *r = &c->rounds[round];

        if (r->n == REPEATS) {
                c->sweep = true;
                return;
        }
        r->v[(r->first + r->n++) % REPEATS] =
                (struct repeat){.no = no, .due = clock_mono() + delays[round]};
        if (r->n == 1)
                pthread_cond_signal(&c->cond);
}

static bool renaming(struct cache *c, uint64_t no)
{
        WITH_LOCK(&c->lock);
        for (unsigned i = 0; i < RENAMES; i++)
                if (c->renames[i] == no)
                        return true;
        return false;
}

/* On the store's thread: nothing here waits. */
static void changed(void *arg, const struct change *ch)
{
        struct cache *c = arg;

        if (atomic_load(&c->live)) {
                if (ch->list_told)
                        drop_attr(c, ino_collection(ch->owner, ch->kind, PART_DIR));
                if (ch->told & TOLD_FILES)
                        drop_files(c, ch->no, ch->kind, ch->told);
                if ((ch->told & TOLD_SELF) && !drop_attr(c, ino_object(ch->no))) {
                        WITH_LOCK(&c->lock);
                        repeat(c, 0, ch->no);
                }
                if ((ch->told & TOLD_NAME) && !ch->deleted && !renaming(c, ch->no)) {
                        drop_names(c);
                        WITH_LOCK(&c->lock);
                        repeat(c, 0, 0);
                }
                if (ch->at)
                        atomic_store(&c->fs->hold->m->told, ch->at);
        }
        if (ch->undone)
                return;
        polls_changed(c->fs, ch->no);
        notices_changed(c->fs, ch);
}

void cache_rename_begins(struct fs *fs, uint64_t no)
{
        WITH_LOCK(&fs->cache->lock);
        for (unsigned i = 0; i < RENAMES; i++)
                if (!fs->cache->renames[i]) {
                        fs->cache->renames[i] = no;
                        return;
                }
}

void cache_rename_ended(struct fs *fs, uint64_t no)
{
        WITH_LOCK(&fs->cache->lock);
        for (unsigned i = 0; i < RENAMES; i++)
                if (fs->cache->renames[i] == no) {
                        fs->cache->renames[i] = 0;
                        return;
                }
}

/* --- the notifier's thread ------------------------------------------------------------------ */

/* One repeat that is due; false when none is, then *wake is when one will be. */
static bool next_due(struct cache *c, int64_t now, uint64_t *ret, int64_t *wake)
{
        *wake = INT64_MAX;
        for (unsigned i = 0; i < ROUNDS; i++) {
                struct repeats *r = &c->rounds[i];

                if (!r->n)
                        continue;
                if (r->v[r->first].due > now) {
                        *wake = MIN(*wake, r->v[r->first].due);
                        continue;
                }
                *ret = r->v[r->first].no;
                r->first = (r->first + 1) % REPEATS;
                r->n--;
                if (i + 1 < ROUNDS)
                        repeat(c, i + 1, *ret);
                return true;
        }
        return false;
}

/* What a life before ours told of it is not marked: all may have been. */
static void forget_object(struct cache *c, uint64_t no, int64_t since)
{
        struct control *control = c->fs->control;
        const struct kind *k;
        struct collection *l;
        struct object *o;
        bool late, holds;

        control_rdlock(control);
        o = model_by_no(control, no);
        k = o ? o->kind : NULL;
        late = o && (o->updated >= since || no == OBJECT_CLOUD);
        holds = o && model_collection(control, o, kinds[0]);
        if (o)
                atomic_store(&o->told, UINT64_MAX);
        for (unsigned i = 0; holds && kinds[i]; i++) {
                l = model_collection(control, o, kinds[i]);
                atomic_store(&l->told, TOLD_SELF);
        }
        control_unlock(control);
        if (late) {
                drop_attr(c, ino_object(no));
                drop_files(c, no, k, UINT64_MAX);
        }
        /* the listings, too: times of directories count anew in each life */
        for (unsigned i = 0; holds && kinds[i]; i++)
                fuse_lowlevel_notify_inval_inode(c->fs->se, ino_collection(no, kinds[i], PART_DIR),
                                                 0, 0);
        if (no == OBJECT_CLOUD)
                fuse_lowlevel_notify_inval_inode(c->fs->se, FUSE_ROOT_ID, 0, 0);
}

/* More than could be remembered: every object. */
static void sweep(struct cache *c)
{
        _cleanup_free_ uint64_t *v = NULL;
        size_t n;

        control_rdlock(c->fs->control);
        n = model_numbers(c->fs->control, &v);
        control_unlock(c->fs->control);
        for (size_t i = 0; i < n; i++)
                drop_attr(c, ino_object(v[i]));
}

static void *notifier(void *arg)
{
        struct cache *c = arg;
        uint64_t no;
        int64_t wake;

        pthread_mutex_lock(&c->lock);
        while (!c->stopping) {
                if (next_due(c, clock_mono(), &no, &wake)) {
                        pthread_mutex_unlock(&c->lock);
                        if (no)
                                drop_attr(c, ino_object(no));
                        else
                                drop_names(c);
                        pthread_mutex_lock(&c->lock);
                } else if (wake != INT64_MAX) {
                        struct timespec until = clock_timespec(wake);

                        pthread_cond_timedwait(&c->cond, &c->lock, &until);
                } else if (c->sweep) { /* a round later than what was not remembered */
                        c->sweep = false;
                        pthread_mutex_unlock(&c->lock);
                        drop_names(c);
                        sweep(c);
                        pthread_mutex_lock(&c->lock);
                } else {
                        pthread_cond_wait(&c->cond, &c->lock);
                }
        }
        pthread_mutex_unlock(&c->lock);
        return NULL;
}

void cache_forget(struct fs *fs)
{
        struct cache *c = fs->cache;
        _cleanup_free_ uint64_t *v = NULL;
        int64_t late = control_shared(fs->control) ? TOLD_LATE_SHARED : TOLD_LATE;
        int64_t since = fs->hold->since - late;
        size_t n;

        drop_names(c);
        control_rdlock(fs->control);
        n = model_numbers(fs->control, &v);
        control_unlock(fs->control);
        for (size_t i = 0; i < n; i++)
                forget_object(c, v[i], since);
}

int cache_new(struct fs *fs)
{
        struct cache *c = calloc(1, sizeof(*c));
        pthread_condattr_t attr;

        if (!c)
                return -ENOMEM;
        fs->cache = c;
        c->fs = fs;
        pthread_mutex_init(&c->lock, NULL);
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_cond_init(&c->cond, &attr);
        pthread_condattr_destroy(&attr);
        if (pthread_create(&c->thread, NULL, notifier, c) != 0)
                return -EAGAIN;
        c->started = true;
        control_on_change(fs->control, changed, c);
        return 0;
}

void cache_init(struct fs *fs, const struct fuse_conn_info *conn)
{
        atomic_store(&fs->cache->epochs, conn->proto_major > 7 || conn->proto_minor >= EPOCH_MINOR);
        atomic_store(&fs->cache->live, true);
}

void cache_free(struct fs *fs)
{
        struct cache *c = TAKE_PTR(fs->cache);

        if (!c)
                return;
        control_on_change(fs->control, NULL, NULL);
        pthread_mutex_lock(&c->lock);
        c->stopping = true;
        pthread_cond_signal(&c->cond);
        pthread_mutex_unlock(&c->lock);
        if (c->started)
                pthread_join(c->thread, NULL);
        pthread_cond_destroy(&c->cond);
        pthread_mutex_destroy(&c->lock);
        free(c);
}
