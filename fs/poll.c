/* poll(2): who watches state, error, events or .follow is woken by a change. */
#include <poll.h>
#include "fs/ops.h"

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
        bool tenant =
                h->type == NODE_ERRORS ||
                ((h->type == NODE_EVENTS || h->type == NODE_FOLLOW) && h->kind == &kind_tenant);
        struct poll *p;

        if (h->type != NODE_STATE && h->type != NODE_EVENTS && h->type != NODE_ERROR &&
            h->type != NODE_FOLLOW && !tenant)
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

void poll_unseen(struct fs *fs, struct handle *h)
{
        if (!h->poll)
                return;
        WITH_LOCK(&fs->polls->lock);
        h->poll->changed = true;
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
        struct handle *h = handle_of(req, fi);
        struct fs *fs = fs_of(req);
        unsigned revents = POLLIN | POLLOUT;

        if (!h) {
                if (ph)
                        fuse_pollhandle_destroy(ph);
                fuse_reply_poll(req, POLLERR);
                return;
        }
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
        if (h->type == NODE_FOLLOW) /* after the handle is listed: nothing comes unseen */
                revents = follow_ready(fs, h) ? POLLIN : 0;
        fuse_reply_poll(req, revents);
}
