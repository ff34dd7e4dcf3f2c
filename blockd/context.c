#include "blockd/context.h"

static const char allocation[] = "base:allocation";
static const char dirty[] = "stratofs:dirty/";
static const char dirty_qemu[] = "qemu:dirty-bitmap:";

static const char *after(const char *s, const char *prefix)
{
        size_t n = strlen(prefix);

        return strncmp(s, prefix, n) == 0 && s[n] ? s + n : NULL;
}

/* The volume that a context's name says changes are asked since; NULL if it is none of these. */
static const char *since_of(const char *name)
{
        const char *id = after(name, dirty);

        return id ? id : after(name, dirty_qemu);
}

static bool has_dirty(const struct session_contexts *c, const char *name)
{
        for (unsigned i = 0; i < c->n; i++)
                if (streq(c->dirty[i].name, name))
                        return true;
        return false;
}

static void query_dirty(const struct session *s, const struct session_export *x, const char *name,
                        struct session_contexts *c)
{
        struct volume_changes *changes;

        /* Looking one up costs: a client has so many tries. */
        if (!s->owner.changes || strlen(name) >= SESSION_CONTEXT_NAME || has_dirty(c, name) ||
            c->tries++ >= SESSION_CONTEXTS)
                return;
        if (s->owner.changes(s->owner.arg, x->volume, since_of(name), &changes, NULL) < 0)
                return;
        volume_changes_close(changes);
        strcpy(c->dirty[c->n++].name, name);
}

void context_query(const struct session *s, const struct session_export *x, const char *query,
                   bool listing, struct session_contexts *c)
{
        if (streq(query, allocation) || (listing && (streq(query, "base:") || !*query)))
                c->allocation = true;
        /* One name stands for them all: there may be very many. */
        if (listing && s->owner.changes &&
            (streq(query, "stratofs:") || streq(query, dirty) || !*query))
                c->some_dirty = true;
        if (since_of(query))
                query_dirty(s, x, query, c);
}

int context_each(const struct session_contexts *c,
                 int (*each)(struct session *s, uint32_t option, uint32_t id, const char *name),
                 struct session *s, uint32_t option)
{
        int r = c->allocation ? each(s, option, CONTEXT_ALLOCATION_ID, allocation) : 0;

        for (unsigned i = 0; i < c->n && r == 0; i++)
                r = each(s, option, CONTEXT_DIRTY_ID + i, c->dirty[i].name);
        return r == 0 && c->some_dirty ? each(s, option, 0, dirty) : r;
}

int contexts_open(struct session *s, const struct session_export *x, struct err **e)
{
        struct session_contexts *c = &s->contexts;

        if (!streq(c->export, x->name)) {
                *c = (struct session_contexts){};
                return 0;
        }
        for (unsigned i = 0; i < c->n; i++) {
                int r = s->owner.changes(s->owner.arg, x->volume, since_of(c->dirty[i].name),
                                         &c->dirty[i].changes, e);

                if (r < 0) {
                        contexts_close(s);
                        return r;
                }
        }
        return 0;
}

void contexts_close(struct session *s)
{
        for (unsigned i = 0; i < s->contexts.n; i++)
                s->contexts.dirty[i].changes = volume_changes_close(s->contexts.dirty[i].changes);
}

bool context_has(const struct session *s, uint32_t id)
{
        return id == CONTEXT_ALLOCATION_ID
                       ? s->contexts.allocation
                       : id >= CONTEXT_DIRTY_ID && id - CONTEXT_DIRTY_ID < s->contexts.n;
}
