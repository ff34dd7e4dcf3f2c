#include "cli/fsck.h"

#include <stdlib.h>
#include <string.h>

#include "cli/blockd.h"
#include "cli/fsck-network.h"
#include "cli/mount.h"
#include "cli/proc.h"
#include "cli/tree.h"
#include "common/macro.h"
#include "common/name.h"

enum { PROBE_MS = 5000, SHOWN = 20, SMALL = 16 };

struct entry {
        char id[ID_TEXT_SIZE];
        bool recorded; /* the tree has it */
        bool settled;  /* its bytes must be there: made, and not on its way out */
        bool there;    /* blockd has it */
        char name[2 * NAME_SIZE + 16];
};

struct ledger {
        struct entry *v;
        size_t n, size;
        const char *tenant, *collection;
        unsigned running;
        struct buf orphans;
        unsigned norphans;
};

static void ledger_done(struct ledger *l)
{
        free(l->v);
        buf_done(&l->orphans);
}

static int compare(const void *a, const void *b)
{
        return strcmp(((const struct entry *)a)->id, ((const struct entry *)b)->id);
}

static struct entry *ledger_add(struct ledger *l, const char *id)
{
        struct entry *x;

        if (l->n == l->size) {
                size_t size = l->size ? 2 * l->size : SMALL;
                struct entry *v = reallocarray(l->v, size, sizeof(*v));

                if (!v)
                        return NULL;
                l->v = v;
                l->size = size;
        }
        x = &l->v[l->n++];
        *x = (struct entry){};
        snprintf(x->id, sizeof(x->id), "%s", id);
        return x;
}

/* States in which an object has no bytes at blockd yet, or may have lost them. */
static bool unsettled(const char *state)
{
        static const char *const words[] = {"draft",    "queued",   "saving", "creating",
                                            "checking", "deleting", "error"};

        for (size_t i = 0; i < ARRAY_SIZE(words); i++)
                if (streq(state, words[i]))
                        return true;
        return false;
}

static int record(void *arg, const struct row *row)
{
        struct ledger *l = arg;
        struct entry *x = ledger_add(l, row->id);

        if (!x)
                return -ENOMEM;
        x->recorded = true;
        /* Only some formats of images have bytes of their own at blockd, and of the backups of a
         * volume the last one has its snapshot there. */
        x->settled = streq(l->collection, "volumes") && !unsettled(row->state);
        snprintf(x->name, sizeof(x->name), "%s/%s/%s", l->tenant, l->collection, row->name);
        return 0;
}

static int count_running(void *arg, const struct row *row)
{
        struct ledger *l = arg;

        if (streq(row->state, "active") || streq(row->state, "paused"))
                l->running++;
        return 0;
}

static int seen(void *arg, const char *id, const char *parent _unused_)
{
        struct entry *x = ledger_add(arg, id);

        if (!x)
                return -ENOMEM;
        x->there = true;
        return 0;
}

static int read_tree(const struct cloud *c, struct ledger *l, struct err **e)
{
        static const char *const collections[] = {"volumes", "images", "backups"};
        _cleanup_(tenants_free) char **tenants = NULL;
        int r;

        r = tree_tenants(c, &tenants, e);
        for (char **t = tenants; r == 0 && *t; t++) {
                l->tenant = *t;
                for (size_t i = 0; r == 0 && i < ARRAY_SIZE(collections); i++) {
                        l->collection = collections[i];
                        r = tree_each(c, *t, collections[i], record, l, e);
                }
                if (r == 0)
                        r = tree_each(c, *t, "instances", count_running, l, e);
        }
        return r;
}

static void orphan(void *arg, const char *what, const char *name)
{
        struct ledger *l = arg;

        if (l->norphans++ < SHOWN)
                buf_printf(&l->orphans, "%s%s %s", l->orphans.len ? "; " : "", what, name);
}

/* Equal ids are neighbours after sorting. */
static void match(struct ledger *l)
{
        if (l->n)
                qsort(l->v, l->n, sizeof(*l->v), compare);
        for (size_t i = 0, k; i < l->n; i = k) {
                const struct entry *known = NULL;
                bool there = false;

                for (k = i; k < l->n && streq(l->v[k].id, l->v[i].id); k++) {
                        there |= l->v[k].there;
                        if (l->v[k].recorded)
                                known = &l->v[k];
                }
                if (!known)
                        orphan(l, "bytes without a volume:", l->v[i].id);
                else if (known->settled && !there)
                        orphan(l, "no bytes of", known->name);
        }
}

enum verdict check_fsck(const struct cloud *c, struct finding *f)
{
        _cleanup_(ledger_done) struct ledger l = {};
        _cleanup_err_ struct err *err = NULL;
        char text[64];
        unsigned guests;
        int r;

        if (mount_probe(c->mount, PROBE_MS) != MOUNT_OK) {
                buf_printf(&f->words, "no cloud answers on '%s'", c->mount);
                buf_addstr(&f->hint, "strato up");
                return CHECK_FAIL;
        }
        r = read_tree(c, &l, &err);
        if (r == 0)
                r = blockd_list(c, seen, &l, &err);
        if (r == 0)
                r = fsck_network(c, proc_guests(c->run, c->state, NULL, 0) > 0, orphan, &l, &err);
        if (r < 0) {
                buf_addstr(&f->words, err ? err_msg(err) : strerror(-r));
                return CHECK_FAIL;
        }
        match(&l);
        guests = proc_guests(c->run, c->state, NULL, 0);
        if (guests != l.running) {
                snprintf(text, sizeof(text), "%u run, %u are recorded as running", guests,
                         l.running);
                orphan(&l, "guests:", text);
        }
        if (l.norphans == 0) {
                buf_printf(&f->words, "%zu records, all as they should be", l.n);
                return CHECK_OK;
        }
        buf_addstr(&f->words, buf_str(&l.orphans));
        if (l.norphans > SHOWN)
                buf_printf(&f->words, "; and %u more", l.norphans - SHOWN);
        return CHECK_WARN;
}
