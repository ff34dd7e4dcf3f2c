/* Files that are rendered when they are opened. */
#include <fcntl.h>
#include "common/log.h"
#include "fs/ephemeral.h"
#include "fs/hold.h"
#include "fs/ops.h"

static const char *const levels[] = {
        [LOG_ERR] = "error", [LOG_WARNING] = "warning", [LOG_INFO] = "info", [LOG_DEBUG] = "debug"};

static void render_time(int64_t t, struct buf *out)
{
        char text[CLOCK_TEXT_MAX];

        buf_printf(out, "%s\n", clock_format(text, t));
}

/* Every collection's index, each line with its kind before the name. */
static void render_tenant_index(struct fs *fs, const struct object *o, struct buf *out)
{
        _cleanup_buf_ struct buf b = {0};

        for (unsigned i = 0; kinds[i]; i++) {
                struct collection *l;

                if (!kind_lives_in(kinds[i], NULL))
                        continue;
                l = model_collection(fs->control, o, kinds[i]);
                if (!l)
                        continue;
                buf_clear(&b);
                render_index(fs->control, l, &b);
                for (const char *p = buf_str(&b), *nl; (nl = strchr(p, '\n')); p = nl + 1) {
                        buf_printf(out, "%s/", kinds[i]->plural);
                        buf_add(out, p, (size_t)(nl - p) + 1);
                }
        }
}

static void render_of_object(struct fs *fs, const struct node *n, struct buf *out)
{
        struct control *c = fs->control;
        const struct object *o = n->o;
        const struct file_def *f;
        char id[ID_TEXT_SIZE];

        switch (n->type) {
        case NODE_ID:
                buf_printf(out, "%s\n", id_text(id, o->id));
                return;
        case NODE_STATE:
                buf_printf(out, "%s\n", object_state(o));
                return;
        case NODE_CREATED:
                render_time(o->created, out);
                return;
        case NODE_UPDATED:
                render_time(o->updated, out);
                return;
        case NODE_CTL:
                render_ctl(c, o, out);
                return;
        case NODE_SPEC:
                render_spec(c, o, out);
                return;
        case NODE_ERROR:
                render_error(c, o, out);
                return;
        case NODE_EVENTS:
                render_events(c, o, out);
                return;
        case NODE_JSON:
                render_json(c, o, out);
                return;
        case NODE_ERRORS:
                render_errors(c, o, out);
                return;
        case NODE_TENANT_INDEX:
                render_tenant_index(fs, o, out);
                return;
        case NODE_TENANT_HELP:
                kinds_help(NULL, out);
                return;
        case NODE_ATTR:
                render_attr(c, o, n->index, out);
                return;
        case NODE_FILE:
                f = &n->kind->files[n->index];
                if (f->render)
                        f->render(c, o, out);
                else if (f->render_at)
                        f->render_at(c, o, f->at, out);
                return;
        case NODE_META:
                buf_addstr(out, n->meta->value);
                return;
        default:
                return;
        }
}

void text_render(struct fs *fs, const struct node *n, struct buf *out)
{
        struct control *c = fs->control;
        struct collection *l;

        switch (n->type) {
        case NODE_HELP:
                render_help(c, out);
                return;
        case NODE_ADMIN_HELP:
                kinds_help("admin", out);
                return;
        case NODE_VERSION:
                render_version(c, out);
                return;
        case NODE_LOGLEVEL:
                buf_printf(out, "%s\n", levels[log_get_level()] ?: "notice");
                return;
        case NODE_USER_ERROR:
        case NODE_USER_ERRORS:
                render_user_error(c, n->uid, n->type == NODE_USER_ERRORS, out);
                return;
        case NODE_USER_TENANT:
                render_default_tenant(c, n->uid, out);
                return;
        case NODE_NEW:
                return;
        case NODE_KIND_HELP:
                kind_help(n->kind, out);
                return;
        case NODE_INDEX:
                l = model_collection(c, n->o, n->kind);
                if (l)
                        render_index(c, l, out);
                return;
        default:
                render_of_object(fs, n, out);
        }
}

static enum role widest_attr(const struct kind *k)
{
        enum role r = ROLE_NOBODY;

        for (unsigned i = 0; i < k->nattrs; i++)
                if (k->attrs[i].writer == ROLE_MEMBER)
                        return ROLE_MEMBER;
                else if (k->attrs[i].writer)
                        r = k->attrs[i].writer;
        return r;
}

static enum role widest_verb(const struct kind *k)
{
        enum role r = ROLE_NOBODY;

        for (unsigned i = 0; i < k->nverbs; i++)
                if (k->verbs[i].role == ROLE_MEMBER)
                        return ROLE_MEMBER;
                else if (k->verbs[i].role)
                        r = k->verbs[i].role;
        return r;
}

enum role text_writer(const struct node *n)
{
        switch (n->type) {
        case NODE_NEW:
                return n->kind->creator;
        case NODE_CTL:
                return widest_verb(n->kind);
        case NODE_SPEC:
                return widest_attr(n->kind);
        case NODE_ATTR:
                return n->kind->attrs[n->index].writer;
        case NODE_FILE:
                return n->kind->files[n->index].writer;
        case NODE_META:
        case NODE_USER_ERRORS:
                return ROLE_MEMBER;
        case NODE_METADATA:
                return ROLE_MEMBER;
        case NODE_ERRORS:
        case NODE_LOGLEVEL:
                return ROLE_ADMIN;
        default:
                return ROLE_NOBODY;
        }
}

/* Opens for writing are refused here for root too, whom the kernel lets through. */
static int check_writable(const struct node *n, struct err **e)
{
        if (text_writer(n) == ROLE_NOBODY)
                return err_set(e, -EACCES, "this file is read-only");
        return 0;
}

int text_open(struct fs *fs, const struct caller *who, const struct node *n, struct handle *h,
              struct err **e)
{
        bool writes = (h->flags & O_ACCMODE) != O_RDONLY;
        struct node now;
        int r = writes ? check_writable(n, e) : 0;

        if (writes)
                h->writer = *who;
        if (!r && writes && (h->flags & O_TRUNC))
                r = text_truncate(fs, who, n, e);
        if (!r)
                r = poll_watch(fs, h);
        if (r < 0)
                return r;
        control_rdlock(fs->control);
        r = node_get(fs, n->ino, &now);
        if (!r) {
                now.uid = n->uid;
                if (n->type == NODE_META) {
                        h->key = strdup(now.meta->key);
                        r = h->key ? 0 : -ENOMEM;
                }
                /* a metadata value is a small file: what is cut off now is cut by the first write
                 */
                if (!r && !(n->type == NODE_META && writes && (h->flags & O_TRUNC)))
                        text_render(fs, &now, &h->text);
                h->rendered = true;
        }
        control_unlock(fs->control);
        return r;
}

static void render_again(struct fs *fs, struct handle *h)
{
        struct node n;

        poll_seen(fs, h);
        control_rdlock(fs->control);
        if (!node_get(fs, h->ino, &n)) {
                buf_clear(&h->text);
                n.uid = h->uid;
                text_render(fs, &n, &h->text);
        }
        control_unlock(fs->control);
}

/* `new` and `spec` answer on the descriptor that wrote: its position is behind the request by then, so what
 * counts is how much of the answers was read. */
static void take_answers(struct handle *h, size_t size, off_t off, struct buf *out)
{
        size_t n;

        if (!off && h->read)
                h->cursor = 0;
        n = MIN(size, h->text.len - h->cursor);
        buf_add(out, buf_str(&h->text) + h->cursor, n);
        h->cursor += n;
}

/* The first read after a death: from its start it may be another text, from the middle of one not. */
static int take_again(struct fs *fs, struct handle *h, bool grows, off_t off)
{
        int r = 0;

        h->restored = false;
        /* a value that is being rewritten begins empty */
        if (h->type == NODE_META && (h->flags & O_TRUNC) && !h->wrote)
                return 0;
        render_again(fs, h);
        if (off && !grows && h->held->read)
                r = handle_shows_same(h, (size_t)off);
        if (r > 0)
                h->text.len = (size_t)off;
        return MIN(r, 0);
}

static int take_text(struct fs *fs, struct handle *h, size_t size, off_t off, struct buf *out)
{
        bool grows =
                h->type == NODE_EVENTS || h->type == NODE_ERRORS || h->type == NODE_USER_ERRORS;
        int r = h->restored ? take_again(fs, h, grows, off) : 0;

        if (r < 0)
                return r;

        /* One version for all reads of a handle, until it is read from the start again; logs go
         * on growing for `tail -f`. */
        if (h->type != NODE_META && ((h->read && !off) || (grows && (uint64_t)off >= h->text.len)))
                render_again(fs, h);
        if ((uint64_t)off < h->text.len)
                buf_add(out, h->text.data + off, MIN(size, h->text.len - (size_t)off));
        handle_shown(h, (size_t)off + out->len);
        return 0;
}

void text_read(fuse_req_t req, struct handle *h, size_t size, off_t off)
{
        _cleanup_buf_ struct buf out = {0};
        int r = 0;

        pthread_mutex_lock(&h->lock);
        if (h->torn)
                r = -ESTALE;
        else if (h->type == NODE_NEW || (h->type == NODE_SPEC && h->wrote))
                take_answers(h, size, off, &out);
        else
                r = take_text(fs_of(req), h, size, off, &out);
        h->read = true;
        handle_keep(h);
        pthread_mutex_unlock(&h->lock);
        /* an answer lets the file be closed: the handle is not ours any more after it */
        if (r < 0 || out.failed)
                fuse_reply_err(req, out.failed ? ENOMEM : fs_errno(r));
        else
                fuse_reply_buf(req, out.data, out.len);
}
