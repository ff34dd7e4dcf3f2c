/* What other hosts change: the kernel has not heard of it, and is told to forget what it knows.
 *
 * On a thread of its own: forgetting a name waits for the lock of its folder, which the kernel
 * holds while a request in it waits for us.  What is lost here is seen a second later all the same:
 * no answer of the mount is good for longer. */
#include "fs/ops.h"

enum { QUEUE = 4096 };

struct foreigner {
        struct foreign f;
        char name[NAME_SIZE];
};

struct foreigners {
        struct fs *fs;
        pthread_mutex_t lock;
        pthread_cond_t cond;
        struct foreigner v[QUEUE];
        size_t first, n;
        bool running, stop;
        pthread_t thread;
};

static void forget(struct fuse_session *se, const struct foreigner *w)
{
        const struct foreign *f = &w->f;
        fuse_ino_t in = f->owner ? ino_collection(f->owner, f->kind, PART_DIR) : 0;

        if (w->name[0] && in)
                fuse_lowlevel_notify_inval_entry(se, in, w->name, strlen(w->name));
        if (in)
                fuse_lowlevel_notify_inval_inode(se, in, 0, 0);
        fuse_lowlevel_notify_inval_inode(se, ino_object(f->no), 0, 0);
        for (unsigned i = 0; i < f->kind->nattrs && !f->deleted; i++)
                fuse_lowlevel_notify_inval_inode(se, INO_OF(f->no, SLOT_ATTRS + i), 0, 0);
        for (unsigned i = 0; i < f->kind->nlinks && !f->deleted; i++)
                fuse_lowlevel_notify_inval_inode(se, INO_OF(f->no, SLOT_LINKS + i), 0, 0);
        fuse_lowlevel_notify_inval_inode(se, INO_OF(f->no, SLOT_METADATA), 0, 0);
}

static void *foreign_main(void *arg)
{
        struct foreigners *q = arg;

        pthread_setname_np(pthread_self(), "foreign");
        pthread_mutex_lock(&q->lock);
        while (!q->stop) {
                struct foreigner w;

                if (!q->n) {
                        pthread_cond_wait(&q->cond, &q->lock);
                        continue;
                }
                w = q->v[q->first];
                q->first = (q->first + 1) % QUEUE;
                q->n--;
                pthread_mutex_unlock(&q->lock);
                forget(q->fs->se, &w);
                pthread_mutex_lock(&q->lock);
        }
        pthread_mutex_unlock(&q->lock);
        return NULL;
}

void foreign_changed(struct fs *fs, const struct foreign *f)
{
        struct foreigners *q = fs->foreigners;
        struct foreigner *to;
        WITH_LOCK(&q->lock);

        if (!q->running && fs->se && !q->stop)
                q->running = pthread_create(&q->thread, NULL, foreign_main, q) == 0;
        if (!q->running || q->n == QUEUE)
                return;
        to = &q->v[(q->first + q->n++) % QUEUE];
        to->f = *f;
        snprintf(to->name, sizeof(to->name), "%s", f->name ?: "");
        pthread_cond_signal(&q->cond);
}

int foreigners_new(struct fs *fs)
{
        struct foreigners *q = calloc(1, sizeof(*q));

        if (!q)
                return -ENOMEM;
        q->fs = fs;
        pthread_mutex_init(&q->lock, NULL);
        pthread_cond_init(&q->cond, NULL);
        fs->foreigners = q;
        return 0;
}

void foreigners_stop(struct fs *fs)
{
        struct foreigners *q = fs->foreigners;
        WITH_LOCK(&q->lock);

        q->stop = true;
        pthread_cond_signal(&q->cond);
}

void foreigners_free(struct fs *fs)
{
        struct foreigners *q = fs->foreigners;

        if (!q)
                return;
        foreigners_stop(fs);
        if (q->running)
                pthread_join(q->thread, NULL);
        pthread_cond_destroy(&q->cond);
        pthread_mutex_destroy(&q->lock);
        free(q);
        fs->foreigners = NULL;
}
