/* Metadata contexts: which blocks are stored, and which have changed since a snapshot.
 *
 *   base:allocation           as proto.md has it
 *   stratofs:dirty/<volume>   flag 1: may differ from that volume, a snapshot of this one */
#include "blockd/option.h"
#include "common/name.h"

#define ALLOCATION "base:allocation"
#define DIRTY "stratofs:dirty/"

static int put_context(struct session *s, uint32_t option, uint32_t id, const char *since)
{
        const char *prefix = since[0] ? DIRTY : ALLOCATION;
        uint32_t a = strlen(prefix), b = strlen(since);
        uint8_t *p = option_reply_begin(s, option, NBD_REP_META_CONTEXT, 4 + a + b);

        if (!p)
                return -EPIPE;
        p = be32_put(p, id);
        memcpy(p, prefix, a);
        memcpy(p + a, since, b);
        return 0;
}

enum { QUERIES = 64 }; /* in one option */

/* One LIST or SET while it is answered. */
struct query {
        struct session *s;
        uint32_t option;
        struct volume *volume;
        bool set;
        bool snapshots;                                  /* all of them were answered */
        struct session_context listed[SESSION_CONTEXTS]; /* LIST: what was answered by name */
        unsigned nlisted;
};

static int put_snapshot(void *arg, const char *since)
{
        const struct query *q = arg;

        return put_context(q->s, q->option, 0, since);
}

static int list_snapshots(struct query *q)
{
        const struct session_owner *o = &q->s->owner;

        if (q->snapshots)
                return 0;
        q->snapshots = true;
        return o->snapshots ? o->snapshots(o->arg, q->volume, put_snapshot, q) : 0;
}

static bool can_compare(struct query *q, const char *since)
{
        const struct session_owner *o = &q->s->owner;
        struct volume_changes *c;

        if (!o->changes || o->changes(o->arg, q->volume, since, &c) < 0)
                return false;
        volume_changes_close(c);
        return true;
}

/* What is asked for twice is answered once, and comparing is looked into only where it matters. */
static int select_context(struct query *q, const char *since)
{
        struct session_context *list = q->set ? q->s->contexts : q->listed;
        unsigned *n = q->set ? &q->s->ncontexts : &q->nlisted;

        for (unsigned i = 0; i < *n; i++)
                if (streq(list[i].since, since))
                        return 0;
        if (*n == SESSION_CONTEXTS || (since[0] && !can_compare(q, since)))
                return 0;
        strcpy(list[*n].since, since);
        ++*n;
        return put_context(q->s, q->option, q->set ? *n : 0, since);
}

/* What nobody knows selects nothing: that is how the protocol says "no". */
static int answer(struct query *q, const char *text)
{
        const size_t prefix = sizeof(DIRTY) - 1;

        if (streq(text, ALLOCATION) || (!q->set && streq(text, "base:")))
                return select_context(q, "");
        if (!q->set && (streq(text, "stratofs:") || streq(text, DIRTY)))
                return list_snapshots(q);
        if (strncmp(text, DIRTY, prefix) == 0 && text[prefix] &&
            strlen(text + prefix) < VOLUME_ID_SIZE)
                return select_context(q, text + prefix);
        return 0;
}

static int answer_all(struct query *q, struct data d)
{
        uint32_t count = data_32(&d);
        char text[NBD_STRING_MAX + 1];
        int r = 0;

        if (!q->set && count == 0) {
                r = select_context(q, "");
                return r < 0 ? r : list_snapshots(q);
        }
        for (uint32_t i = 0; i < count && r == 0; i++) {
                if (session_gone(q->s))
                        return -ESHUTDOWN;
                if (data_string(&d, text))
                        r = answer(q, text);
        }
        return r;
}

/* Whether the queries end where the data does. */
static bool well_formed(struct data d)
{
        uint32_t count = data_32(&d);

        for (uint32_t i = 0; i < count && !d.bad; i++)
                data_get(&d, data_32(&d));
        return !d.bad && d.n == 0;
}

int option_meta_context(struct session *s, uint32_t option, struct data *d)
{
        struct query q = {.s = s, .option = option, .set = option == NBD_OPT_SET_META_CONTEXT};
        _cleanup_err_ struct err *e = NULL;
        char name[NBD_STRING_MAX + 1];
        struct session_export x = {};
        bool good = data_string(d, name);
        int r;

        if (q.set)
                contexts_end(s); /* each SET forgets the one before */
        if (d->bad || !well_formed(*d))
                return option_words(s, option, NBD_REP_ERR_INVALID, "the lengths do not add up");
        if (s->form == FORM_SIMPLE)
                return option_words(s, option, NBD_REP_ERR_INVALID,
                                    "structured replies come first");
        if (data_32(&(struct data){.p = d->p, .n = d->n}) > QUERIES)
                return option_words(s, option, NBD_REP_ERR_TOO_BIG, "too many queries");
        r = good ? s->owner.open(s->owner.arg, name, &x, &e)
                 : err_set(&e, -ENOENT, "no export has such a name");
        if (r < 0)
                return option_refuse(s, option, r, e);
        q.volume = x.volume;
        if (q.set)
                strcpy(s->contexts_of, x.name);
        r = answer_all(&q, *d);
        volume_close(x.volume);
        return r < 0 ? r : option_reply(s, option, NBD_REP_ACK, NULL, 0);
}

int contexts_begin(struct session *s, const char *name)
{
        if (s->ncontexts > 0 && !streq(s->contexts_of, name))
                contexts_end(s); /* they were selected for another export */
        for (unsigned i = 0; i < s->ncontexts; i++) {
                struct session_context *c = &s->contexts[i];
                int r = c->since[0]
                                ? s->owner.changes(s->owner.arg, s->volume, c->since, &c->changes)
                                : 0;

                if (r < 0)
                        return r;
        }
        return 0;
}

void contexts_end(struct session *s)
{
        for (unsigned i = 0; i < s->ncontexts; i++)
                s->contexts[i].changes = volume_changes_close(s->contexts[i].changes);
        s->ncontexts = 0;
}
