/* Open files: one handle an open(2), known by a number that a successor's handle has, too. */
#include <fcntl.h>
#include "common/log.h"
#include "fs/ephemeral.h"
#include "fs/hold.h"
#include "fs/ops.h"

/* A place in the table; its generation keeps a number from meaning another file later. */
static int take_slot(struct hold *h, struct handle *handle)
{
        WITH_LOCK(&h->lock);
        for (unsigned i = h->lowest; i < HOLD_HANDLES; i++) {
                if (h->handles[i])
                        continue;
                h->handles[i] = handle;
                h->lowest = i + 1;
                handle->held = &h->m->handles[i];
                h->m->handles_used = MAX(h->m->handles_used, i + 1);
                handle->fh = (uint64_t)++h->generations[i] << 32 | (i + 1);
                return 0;
        }
        return -ENFILE;
}

static void give_slot(struct hold *h, struct handle *handle)
{
        unsigned i = (uint32_t)handle->fh - 1;

        atomic_store(&handle->held->fh, 0);
        WITH_LOCK(&h->lock);
        h->handles[i] = NULL;
        h->lowest = MIN(h->lowest, i);
}

static struct handle *make(struct fs *fs, const struct node *n, int flags)
{
        struct handle *h = calloc(1, sizeof(*h));

        if (!h)
                return NULL;
        h->type = n->type;
        h->ino = n->ino;
        h->no = n->no;
        h->index = n->index;
        h->kind = n->kind;
        h->uid = n->uid;
        h->e = n->e;
        h->flags = flags;
        h->fd = h->head = -1;
        pthread_mutex_init(&h->lock, NULL);
        WITH_LOCK(&fs->lock);
        h->after = fs->handles;
        if (h->after)
                h->after->before = h;
        fs->handles = h;
        return h;
}

static void unmake(struct fs *fs, struct handle *h)
{
        pthread_mutex_lock(&fs->lock);
        if (h->after)
                h->after->before = h->before;
        if (h->before)
                h->before->after = h->after;
        else
                fs->handles = h->after;
        pthread_mutex_unlock(&fs->lock);
        poll_drop(fs, h);
        if (h->fd >= 0)
                close(h->fd);
        if (h->head >= 0)
                close(h->head);
        free(h->key);
        free(h->cut);
        buf_done(&h->text);
        buf_done(&h->line);
        frame_done(&h->frame);
        pthread_mutex_destroy(&h->lock);
        free(h);
}

int handle_new(struct fs *fs, const struct caller *who, const struct node *n, int flags,
               struct handle **ret)
{
        struct handle *h = make(fs, n, flags);
        struct held_handle *s;

        if (!h)
                return -ENOMEM;
        if (take_slot(fs->hold, h) < 0) {
                unmake(fs, h);
                return -ENFILE;
        }
        h->writer = *who;
        if ((h->type == NODE_DATA || h->type == NODE_UPLOAD) && (flags & O_ACCMODE) != O_RDONLY)
                atomic_store(&fs->hold->m->bulk, 1);
        s = h->held;
        memset(s, 0, sizeof(*s));
        s->unique = worker_self(fs->hold)->unique;
        s->ino = h->ino;
        s->flags = flags;
        s->uid = who->uid;
        s->gid = who->gid;
        s->pid = who->pid;
        atomic_store(&s->fh, h->fh);
        *ret = h;
        return 0;
}

void handle_free(struct fs *fs, struct handle *h)
{
        give_slot(fs->hold, h);
        unmake(fs, h);
}

struct handle *handle_get(struct hold *h, uint64_t fh)
{
        unsigned i = (uint32_t)fh - 1;
        struct handle *handle;

        if (i >= HOLD_HANDLES)
                return NULL;
        WITH_LOCK(&h->lock);
        handle = h->handles[i];
        return handle && handle->fh == fh ? handle : NULL;
}

struct handle *handle_of(fuse_req_t req, const struct fuse_file_info *fi)
{
        return fi ? handle_get(fs_of(req)->hold, fi->fh) : NULL;
}

struct handle *handle_again(struct fs *fs)
{
        const struct worker *w = worker_self(fs->hold);
        struct handle *found = NULL;

        if (!w->again)
                return NULL;
        WITH_LOCK(&fs->lock);
        for (struct handle *h = fs->handles; h && !found; h = h->after)
                if (h->held->unique == w->unique)
                        found = h;
        return found;
}

bool handle_writes(struct fs *fs, fuse_ino_t ino, pid_t pid)
{
        WITH_LOCK(&fs->lock);
        for (const struct handle *h = fs->handles; h; h = h->after)
                if (h->ino == ino && h->writer.pid == pid && (h->flags & O_ACCMODE) != O_RDONLY)
                        return true;
        return false;
}

void handles_free(struct fs *fs)
{
        for (struct handle *h; (h = fs->handles);) {
                if (!h->closed)
                        upload_stopped(h);
                if (h->type == NODE_UPLOAD)
                        upload_release(fs, h);
                if (h->type == NODE_DATA)
                        data_release(fs, h);
                if (h->e)
                        ephemeral_closed(fs->ephemerals, h->e);
                handle_free(fs, h);
        }
}

/* --- what a successor has to know --------------------------------------------------------------
 */

static uint64_t checksum(const struct buf *b, size_t n)
{
        uint64_t sum = UINT64_C(0xcbf29ce484222325); /* FNV-1a */

        for (size_t i = 0; i < n; i++)
                sum = (sum ^ (unsigned char)b->data[i]) * UINT64_C(0x100000001b3);
        return sum ?: 1;
}

static void keep_text(struct held_handle *s, enum held_text type, const char *p, size_t n)
{
        s->text_type = n > HOLD_TEXT ? HELD_TORN : n ? type : HELD_NONE;
        s->text_len = n > HOLD_TEXT ? 0 : n;
        if (s->text_len)
                memcpy(s->text, p, n);
}

void handle_keep(struct handle *h)
{
        struct held_handle *s = h->held;
        bool answers = h->type == NODE_NEW || (h->type == NODE_SPEC && h->wrote);

        s->next = h->next;
        s->cursor = h->cursor;
        s->wrote = h->wrote;
        s->read = h->read;
        if (h->frame.pending.len)
                keep_text(s, HELD_PENDING, h->frame.pending.data, h->frame.pending.len);
        else if (h->line.len)
                keep_text(s, HELD_LINE, h->line.data, h->line.len);
        else if (answers)
                keep_text(s, HELD_ANSWER, buf_str(&h->text), h->text.len);
        else
                s->text_type = HELD_NONE;
}

void handle_shown(struct handle *h, size_t end)
{
        h->held->rendered_len = h->text.len;
        h->held->check = end < h->text.len ? checksum(&h->text, h->text.len) : 0;
        h->held->read = true;
}

int handle_shows_same(struct handle *h, size_t off)
{
        if (!h->held->check && off >= h->held->rendered_len)
                return 1;
        return h->text.len == h->held->rendered_len &&
                               checksum(&h->text, h->text.len) == h->held->check
                       ? 0
                       : -ESTALE;
}

/* --- a successor -------------------------------------------------------------------------------
 */

static void restore_text(struct handle *h)
{
        const struct held_handle *s = h->held;

        h->wrote = s->wrote;
        h->read = s->read;
        h->cursor = s->cursor;
        h->next = s->upload ? 0 : s->next;
        switch (s->text_type) {
        case HELD_PENDING:
                frame_again(&h->frame, s->text, s->text_len,
                            h->type == NODE_SPEC || (h->type == NODE_NEW && *s->text == '{'));
                break;
        case HELD_LINE:
                buf_add(&h->line, s->text, s->text_len);
                break;
        case HELD_ANSWER:
                buf_add(&h->text, s->text, s->text_len);
                break;
        case HELD_TORN:
                h->torn = true;
                break;
        default:
                break;
        }
}

/* The object of a stream may be gone: then that is what its next read says. */
static int node_again(struct fs *fs, struct held_handle *s, struct node *n)
{
        int r = (s->ino & INO_EPHEMERAL) && !s->upload ? -ESTALE : node_get(fs, s->ino, n);

        if (r < 0 && (s->ino & INO_WAIT) && !(s->ino & INO_EPHEMERAL))
                n->type = NODE_WAIT;
        else if (r < 0 && !(s->ino >> 61) && (s->ino & ((1u << SLOT_BITS) - 1)) == SLOT_FOLLOW)
                n->type = NODE_FOLLOW;
        else
                return r;
        return 0;
}

static int restore(struct fs *fs, unsigned i)
{
        struct hold *hold = fs->hold;
        struct held_handle *s = &hold->m->handles[i];
        struct handle *h;
        struct node n;
        int r;

        r = s->upload && (s->ino & INO_EPHEMERAL) ? upload_again(fs, s) : 0;
        if (r < 0)
                return r;
        control_rdlock(fs->control);
        r = node_again(fs, s, &n);
        h = r == 0 ? make(fs, &n, s->flags) : NULL;
        if (h && n.type == NODE_META)
                h->key = strdup(n.meta->key);
        control_unlock(fs->control);
        if (!h)
                return r ?: -ENOMEM;
        h->held = s;
        h->fh = atomic_load(&s->fh);
        h->restored = true;
        h->writer = (struct caller){.uid = s->uid, .gid = s->gid, .pid = (pid_t)s->pid};
        restore_text(h);
        if (h->type == NODE_DATA)
                r = data_again(fs, h);
        else if (h->type == NODE_FOLLOW)
                r = follow_again(fs, h);
        else
                r = poll_watch(fs, h);
        if (r == 0 && h->type == NODE_META && !h->key)
                r = -ENOMEM;
        if (r < 0) {
                unmake(fs, h);
                return r;
        }
        if (h->e)
                ephemeral_opened(fs->ephemerals, h->e);
        poll_unseen(fs, h);
        hold->handles[i] = h;
        return 0;
}

void handles_restore(struct fs *fs)
{
        struct hold *h = fs->hold;
        unsigned kept = 0, lost = 0;

        /* what a dead open left half done may have any number; ours are all newer */
        for (unsigned i = 0; i < HOLD_HANDLES; i++)
                h->generations[i] = h->m->lives << 20;
        for (unsigned i = 0; i < h->m->handles_used; i++) {
                struct held_handle *s = &h->m->handles[i];
                uint64_t fh = atomic_load(&s->fh);

                if (!fh)
                        continue;
                if (restore(fs, i) == 0) {
                        kept++;
                        continue;
                }
                if (s->upload)
                        control_upload_lost(fs->control, s->upload, s->received);
                atomic_store(&s->fh, 0);
                lost++;
        }
        if (kept || lost)
                log_info("%s: %u open files go on, %u are stale", fs->mountpoint, kept, lost);
}
