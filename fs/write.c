/* What a write(2) to a text file does: validated, committed, then answered. */
#include <ctype.h>
#include <fcntl.h>
#include "common/log.h"
#include "fs/ephemeral.h"
#include "fs/ops.h"

/* One writer of one file: what the frame's callbacks need. */
struct writing {
        struct fs *fs;
        const struct caller *who;
        uint64_t no;
        unsigned index;
        const struct kind *kind;
        struct buf *answer; /* of `new` and `spec`; may be NULL */
};

static int take_verb(void *arg, const char *p, size_t n, struct err **e)
{
        struct writing *w = arg;

        if (once_done(w->fs))
                return 0;
        return control_verb(w->fs->control, w->who, w->no, p, n, e);
}

static int take_file_line(void *arg, const char *p, size_t n, struct err **e)
{
        struct writing *w = arg;

        if (once_done(w->fs))
                return 0;
        return control_write_line(w->fs->control, w->who, w->no, w->index, p, n, e);
}

static int take_spec(void *arg, const char *p, size_t n, struct err **e)
{
        struct writing *w = arg;
        _cleanup_free_ char *said = NULL;
        int r = once_done(w->fs) ? 0 : control_apply(w->fs->control, w->who, w->no, p, n, &said, e);

        if (!r && said && w->answer)
                buf_addstr(w->answer, said);
        return r;
}

static int take_new(void *arg, const char *p, size_t n, struct err **e)
{
        struct writing *w = arg;
        _cleanup_free_ char *line = NULL;
        int r = once_done(w->fs)
                        ? control_made(w->fs->control, w->no, w->kind, p, n, &line, e)
                        : control_new(w->fs->control, w->who, w->no, w->kind, p, n, &line, e);

        if (!r && line && w->answer)
                buf_addstr(w->answer, line);
        return r;
}

static size_t without_newline(const char *p, size_t n)
{
        return n && p[n - 1] == '\n' ? n - 1 : n;
}

static int one_line(const char *p, size_t n, struct err **e)
{
        const char *nl = memchr(p, '\n', n);

        if (n > TEXT_MAX)
                return err_set(e, -EFBIG, "a value has at most %d bytes", TEXT_MAX);
        if (nl)
                return err_at(e, -EINVAL, p, n, (size_t)(nl - p) + 1, n - (size_t)(nl - p) - 1,
                              "a second line: this file holds one value");
        return 0;
}

static int set_loglevel(const struct caller *who, struct fs *fs, const char *p, size_t n,
                        struct err **e)
{
        static const struct {
                const char *name;
                int level;
        } words[] = {{"error", LOG_ERR},
                     {"warning", LOG_WARNING},
                     {"info", LOG_INFO},
                     {"debug", LOG_DEBUG}};

        if (!caller_is_admin(fs->control, who))
                return err_set(e, -EPERM, "only an administrator sets the log level");
        for (size_t i = 0; i < ARRAY_SIZE(words); i++)
                if (n == strlen(words[i].name) && !memcmp(p, words[i].name, n)) {
                        log_set_level(words[i].level);
                        return 0;
                }
        err_at(e, -EINVAL, p, n, 0, n, "not a log level");
        return err_hint(e, -EINVAL, "error warning info debug");
}

static bool has_lines(const struct writing *w, enum node_type type)
{
        return type == NODE_ATTR && w->kind->attrs[w->index].lines;
}

/* One value, whole. */
static int write_scalar(struct writing *w, enum node_type type, const char *p, size_t n,
                        struct err **e)
{
        int r;

        n = without_newline(p, n);
        r = has_lines(w, type) ? 0 : one_line(p, n, e);
        if (r < 0)
                return r;
        if (type == NODE_LOGLEVEL)
                return set_loglevel(w->who, w->fs, p, n, e);
        if (once_done(w->fs))
                return 0;
        return control_set(w->fs->control, w->who, w->no, w->index, p, n, e);
}

/* What others wrote since the file was opened stays when one appends. */
static int meta_now(struct writing *w, struct handle *h)
{
        struct control *c = w->fs->control;
        const struct object *o;
        const struct meta *m;

        if (h->flags & O_TRUNC && !h->wrote)
                return 0;
        buf_clear(&h->text);
        control_rdlock(c);
        o = model_by_no(c, h->no);
        m = o ? object_meta(o, h->key) : NULL;
        if (m)
                buf_addstr(&h->text, m->value);
        control_unlock(c);
        return h->text.failed ? -ENOMEM : 0;
}

/* A metadata value is text of any shape, up to 4 KiB or 64 KiB, written like a small file. */
static int write_meta(struct writing *w, struct handle *h, const char *p, size_t n, uint64_t off,
                      struct err **e)
{
        const size_t max = meta_value_max(h->kind, h->key);
        _cleanup_buf_ struct buf b = {0};
        int r = h->flags & O_APPEND || h->restored ? meta_now(w, h) : 0;

        h->restored = false;

        if (r < 0)
                return r;
        if (h->flags & O_APPEND)
                off = h->text.len;
        if (n > max || off > max - n)
                return err_set(e, -EFBIG, "this metadata value has at most %zu bytes", max);
        buf_add(&b, buf_str(&h->text), MIN(h->text.len, (size_t)off));
        while (b.len < off)
                buf_addc(&b, ' ');
        buf_add(&b, p, n);
        if (h->text.len > off + n)
                buf_add(&b, h->text.data + off + n, h->text.len - (size_t)off - n);
        if (b.failed)
                return -ENOMEM;
        if (!once_done(w->fs))
                r = control_set_meta(w->fs->control, w->who, w->no, h->key, buf_str(&b), b.len, e);
        if (r < 0)
                return r;
        buf_done(&h->text);
        h->text = b;
        b = (struct buf){0};
        return 0;
}

/* One line may come in pieces that follow each other, as emacs writes it: each piece makes it the
 * whole value anew.  A line that has had its newline is complete. */
static int write_value(struct writing *w, struct handle *h, const char *p, size_t n, uint64_t off,
                       struct err **e)
{
        bool goes_on = h->wrote && off && off == h->next;
        size_t before = goes_on ? h->line.len : 0;
        int r;

        if (goes_on && !before)
                return err_at(e, -EINVAL, p, n, 0, n, "a second line: this file holds one value");
        if (n > TEXT_MAX || before + n > TEXT_MAX)
                return err_set(e, -EFBIG, "a value has at most %d bytes", TEXT_MAX);
        if (!goes_on)
                buf_clear(&h->line);
        buf_add(&h->line, p, n);
        if (h->line.failed)
                return -ENOMEM;
        r = write_scalar(w, h->type, h->line.data, h->line.len, e);
        if (r < 0)
                h->line.len = before;
        else if (h->line.data[h->line.len - 1] == '\n' && !has_lines(w, h->type))
                buf_clear(&h->line);
        return r;
}

static int dispatch(struct writing *w, struct handle *h, const char *p, size_t n, uint64_t off,
                    struct err **e)
{
        switch (h->type) {
        case NODE_ATTR:
        case NODE_LOGLEVEL:
                return write_value(w, h, p, n, off, e);
        case NODE_CTL:
                return frame_lines(&h->frame, p, n, TEXT_MAX, take_verb, w, e);
        case NODE_FILE:
                return frame_lines(&h->frame, p, n, TEXT_MAX, take_file_line, w, e);
        case NODE_SPEC:
                if (!h->wrote)
                        buf_clear(&h->text); /* reads are of answers from now on */
                w->answer = &h->text;
                return frame_json(&h->frame, p, n, SPEC_MAX, take_spec, w, e);
        case NODE_NEW:
                w->answer = &h->text;
                return frame_either(&h->frame, p, n, SPEC_MAX, take_new, take_new, w, e);
        case NODE_META:
                return write_meta(w, h, p, n, off, e);
        case NODE_ERRORS:
        case NODE_USER_ERRORS:
                return err_set(e, -EPERM, "failures are written by the cloud; `: > errors` clears");
        default:
                return err_set(e, -EACCES, "this file is read-only");
        }
}

int text_write(struct fs *fs, const struct caller *who, struct handle *h, const char *p, size_t n,
               uint64_t off, struct err **e)
{
        struct writing w = {.fs = fs, .who = who, .no = h->no, .index = h->index, .kind = h->kind};
        int r;

        if (h->torn)
                return err_set(e, -ESTALE,
                               "the daemon was started again in the middle of this: open the file "
                               "again and write it whole");
        r = dispatch(&w, h, p, n, off, e);

        if (!r) {
                h->wrote = true;
                h->next = off + n;
        }
        return r;
}

int text_flush(struct fs *fs, const struct caller *who, struct handle *h, struct err **e)
{
        struct writing w = {.fs = fs, .who = who, .no = h->no, .index = h->index, .kind = h->kind};

        w.answer = h->type == NODE_NEW ? &h->text : NULL;
        return frame_flush(&h->frame,
                           h->type == NODE_CTL    ? take_verb
                           : h->type == NODE_FILE ? take_file_line
                                                  : take_new,
                           &w, e);
}

int text_replace(struct fs *fs, const struct caller *who, const struct node *n, const char *p,
                 size_t len, struct err **e)
{
        struct handle h = {.type = n->type, .no = n->no, .index = n->index, .kind = n->kind};
        int r;

        if (text_writer(n) == ROLE_NOBODY)
                return err_set(e, -EACCES, "this file is read-only");
        r = text_write(fs, who, &h, p, len, 0, e);
        if (!r)
                r = text_flush(fs, who, &h, e);
        frame_done(&h.frame);
        buf_done(&h.text);
        buf_done(&h.line);
        return r;
}

/* A metadata value is cut like a file; to nothing only with the first write, as by O_TRUNC. */
static int cut_meta(struct fs *fs, const struct caller *who, struct handle *h, uint64_t size,
                    struct err **e)
{
        if (size > h->text.len)
                return err_set(e, -EINVAL, "a value does not grow by truncation: write it");
        h->text.len = (size_t)size;
        if (!size)
                return 0;
        if (once_done(fs))
                return 0;
        return control_set_meta(fs->control, who, h->no, h->key, h->text.data, h->text.len, e);
}

int text_cut(struct fs *fs, const struct caller *who, const struct node *n, struct handle *h,
             uint64_t size, struct err **e)
{
        WITH_LOCK(&h->lock);
        if (h->type == NODE_META)
                return cut_meta(fs, who, h, size, e);
        if (!size)
                return text_truncate(fs, who, n, e);
        /* Who cuts behind what he wrote (rsync --inplace, an editor) takes the old value for a
         * longer one: it is gone already. */
        if (h->wrote && size == h->next)
                return 0;
        return err_set(e, -EINVAL, "a value has no length of its own: write it");
}

int text_truncate(struct fs *fs, const struct caller *who, const struct node *n, struct err **e)
{
        if (n->type == NODE_USER_ERRORS) {
                if (who->uid != n->uid && !caller_is_admin(fs->control, who))
                        return err_set(e, -EPERM, "these are another user's failures");
                control_clear_errors(fs->control, 0, n->uid);
        } else if (n->type == NODE_ERRORS) {
                if (!caller_is_admin(fs->control, who))
                        return err_set(e, -EPERM, "only an administrator clears these");
                control_clear_errors(fs->control, n->no, who->uid);
        } else if (text_writer(n) == ROLE_NOBODY) {
                return err_set(e, -EACCES, "this file is read-only");
        }
        return 0;
}
