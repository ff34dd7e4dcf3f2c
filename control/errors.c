/* Failures and events as text in the tree.
 *
 * A failure's record, as `error` and `errors` show it:
 *   2026-01-31T12:00:00.123Z 42 uid=1000 pid=77 write tenants/default/volumes/v/size EINVAL: words
 *     hint
 *     input: 10 G B
 *              ^^^^
 * An event's line: TIME SEQ KIND/NAME words. */
#include "control/internal.h"

enum { RING_USER = 16 << 10, RING_ROOM = 64 << 10, CARET_INPUT = 160 };

void ring_add(struct ring *r, const char *text, size_t max)
{
        size_t n = strlen(text), drop = 0;

        if (n > max)
                return;
        while (r->len - drop + n > max) { /* whole records: each begins at a line's start */
                const char *nl = memchr(r->text + drop, '\n', r->len - drop);

                drop = nl ? (size_t)(nl - r->text) + 1 : r->len;
                while (drop < r->len && r->text[drop] == ' ')
                        drop = (char *)memchr(r->text + drop, '\n', r->len - drop) - r->text + 1;
                r->lost++;
        }
        if (drop)
                memmove(r->text, r->text + drop, r->len - drop);
        r->len -= drop;
        r->text = xrealloc(r->text, r->len + n + 1, 1);
        memcpy(r->text + r->len, text, n + 1);
        r->len += n;
        r->added++;
}

const char *errno_name(int code)
{
        const char *name = strerrorname_np(code < 0 ? -code : code);

        return name ? name : "EIO";
}

/* The refused text with a caret under the bad token; long input is cut around it. */
static void add_caret(struct buf *b, const struct err *err)
{
        size_t n = strlen(err->input), from = 0, len = MAX(err->len, (size_t)1);

        if (n > CARET_INPUT && err->at > CARET_INPUT / 2)
                from = err->at - CARET_INPUT / 2;
        buf_addstr(b, "  input: ");
        for (size_t i = from; i < n && i < from + CARET_INPUT; i++) {
                unsigned char ch = err->input[i];

                buf_addc(b, ch < 0x20 || ch >= 0x7f ? '?' : ch);
        }
        buf_addstr(b, n - from > CARET_INPUT ? "...\n         " : "\n         ");
        for (size_t i = from; i < err->at && i < from + CARET_INPUT; i++)
                buf_addc(b, ' ');
        for (size_t i = 0; i < len && i < CARET_INPUT; i++)
                buf_addc(b, '^');
        buf_addc(b, '\n');
}

/* What somebody called a thing that was refused has its say in the words: it begins no line of its
 * own and moves no cursor of whoever reads them. */
static void add_words(struct buf *b, const char *text)
{
        const size_t n = strlen(text);
        const bool clean = text_clean(text, n, false);

        for (size_t i = 0; i < n; i++) {
                unsigned char ch = text[i];

                buf_addc(b, ch < 0x20 || ch == 0x7f || (ch > 0x7f && !clean) ? '?' : ch);
        }
}

char *error_record(struct control *c, const struct caller *who, const char *op, const char *path,
                   int code, const struct err *err)
{
        char stamp[CLOCK_TEXT_MAX];
        struct buf b = {};

        buf_printf(&b, "%s %lu ", clock_format(stamp, clock_now()), atomic_fetch_add(&c->seq, 1));
        if (who)
                buf_printf(&b, "uid=%u pid=%d ", who->uid, who->pid);
        buf_printf(&b, "%s%s", op, *path ? " " : "");
        add_words(&b, path);
        buf_printf(&b, " %s: ", errno_name(code));
        add_words(&b, err ? err_msg(err) : strerror(-code));
        buf_addc(&b, '\n');
        if (err && err->hint)
                buf_printf(&b, "  %s\n", err->hint);
        if (err && err->input)
                add_caret(&b, err);
        return buf_take(&b);
}

struct user *user_get(struct control *c, uid_t uid)
{
        struct user *u;

        HASH_FIND(hh, c->users, &uid, sizeof(uid), u);
        if (u)
                return u;
        u = xcalloc(1, sizeof(*u));
        u->uid = uid;
        HASH_ADD(hh, c->users, uid, sizeof(u->uid), u);
        return u;
}

void control_record(struct control *c, const struct caller *who, const char *op, const char *path,
                    uint64_t no, uint64_t tenant, int code, const struct err *err)
{
        _cleanup_free_ char *text = error_record(c, who, op, path, code, err);
        struct object *o, *t;

        /* An object's `error` outlives its writer but not a restart: only what a job failed of
         * is stored.  So it is set here under the write lock without a transaction. */
        pthread_rwlock_wrlock(&c->model);
        pthread_mutex_lock(&c->texts);
        o = no ? model_by_no(c, no) : NULL;
        t = tenant ? model_by_no(c, tenant) : o ? o->tenant : NULL;
        if (o && o->kind != &kind_cloud) {
                free(o->error);
                o->error = xstrdup(text);
        }
        if (t && t->kind == &kind_tenant)
                ring_add(&model_room(c, t)->errors, text, RING_ROOM);
        if (who) {
                struct user *u = user_get(c, who->uid);

                ring_add(&u->errors, text, RING_USER);
                free(u->last);
                u->last = TAKE_PTR(text);
        }
        pthread_mutex_unlock(&c->texts);
        pthread_rwlock_unlock(&c->model);
        log_debug("%s %s: %s", op, path, err_msg(err));
}

void control_clear_errors(struct control *c, uint64_t tenant, uid_t uid)
{
        struct object *t;
        struct ring *r = NULL;

        control_rdlock(c);
        pthread_mutex_lock(&c->texts);
        t = tenant ? model_by_no(c, tenant) : NULL;
        if (t)
                r = &model_room(c, t)->errors;
        else if (!tenant)
                r = &user_get(c, uid)->errors;
        if (r) {
                free(r->text);
                *r = (struct ring){};
        }
        pthread_mutex_unlock(&c->texts);
        control_unlock(c);
}

void events_add(struct control *c, const struct object *o, const char *text)
{
        struct object *owner = o->kind == &kind_tenant ? (struct object *)o
                               : o->tenant             ? o->tenant
                                                       : model_by_no(c, OBJECT_CLOUD);
        char stamp[CLOCK_TEXT_MAX];
        struct buf b = {};

        buf_printf(&b, "%s %lu %s/%s %s\n", clock_format(stamp, clock_now()),
                   atomic_fetch_add(&c->seq, 1), o->kind->plural, o->name, text);
        pthread_mutex_lock(&c->texts);
        ring_add(&model_room(c, owner)->events, buf_str(&b), RING_ROOM);
        pthread_mutex_unlock(&c->texts);
        buf_done(&b);
}

void render_error(struct control *c, const struct object *o, struct buf *out)
{
        if (o->error)
                buf_addstr(out, o->error);
}

/* The lines from record `from` on.  What belongs to a record begins with a space. */
static void ring_lines(const struct ring *r, uint64_t from, const char *filter, struct buf *out)
{
        uint64_t at = r->lost;

        for (const char *p = r->text; p && *p;) {
                size_t n = strcspn(p, "\n") + 1;
                const char *what = p + strcspn(p, " ") + 1; /* behind the time */

                what += strcspn(what, " ") + 1; /* behind the number */
                if (at >= from && (!filter || strncmp(what, filter, strlen(filter)) == 0))
                        buf_add(out, p, n);
                p += n;
                at += *p != ' ';
        }
}

static void ring_render(const struct ring *r, const char *filter, struct buf *out)
{
        if (r->lost)
                buf_printf(out, "lost %" PRIu64 "\n", r->lost);
        ring_lines(r, 0, filter, out);
}

struct ring *events_ring(struct control *c, const struct object *o)
{
        struct room *room = model_room(c, o);

        if (!room)
                room = model_room(c, o->tenant ? o->tenant : model_by_no(c, OBJECT_CLOUD));
        return &room->events;
}

/* What an object's lines begin with; NULL for one with a log of its own. */
static const char *events_filter(struct control *c, const struct object *o, char out[NAME_SIZE * 2])
{
        if (model_room(c, o))
                return NULL;
        snprintf(out, NAME_SIZE * 2, "%s/%s ", o->kind->plural, o->name);
        return out;
}

void render_events(struct control *c, const struct object *o, struct buf *out)
{
        char filter[NAME_SIZE * 2];

        pthread_mutex_lock(&c->texts);
        ring_render(events_ring(c, o), events_filter(c, o, filter), out);
        pthread_mutex_unlock(&c->texts);
}

void render_events_from(struct control *c, const struct object *o, uint64_t *cursor,
                        struct buf *out)
{
        const struct ring *r = events_ring(c, o);
        char filter[NAME_SIZE * 2];

        pthread_mutex_lock(&c->texts);
        if (*cursor < r->lost)
                buf_printf(out, "lost %" PRIu64 "\n", r->lost - *cursor);
        ring_lines(r, *cursor, events_filter(c, o, filter), out);
        *cursor = r->added;
        pthread_mutex_unlock(&c->texts);
}

void render_errors(struct control *c, const struct object *tenant, struct buf *out)
{
        pthread_mutex_lock(&c->texts);
        ring_render(&model_room(c, tenant)->errors, NULL, out);
        pthread_mutex_unlock(&c->texts);
}

void render_user_error(struct control *c, uid_t uid, bool all, struct buf *out)
{
        struct user *u;

        pthread_mutex_lock(&c->texts);
        u = user_get(c, uid);
        if (all)
                ring_render(&u->errors, NULL, out);
        else if (u->last)
                buf_addstr(out, u->last);
        pthread_mutex_unlock(&c->texts);
}

void render_default_tenant(struct control *c, uid_t uid, struct buf *out)
{
        struct user *u;

        pthread_mutex_lock(&c->texts);
        u = user_get(c, uid);
        buf_printf(out, "%s\n", u->default_tenant ? u->default_tenant : "default");
        pthread_mutex_unlock(&c->texts);
}
