/* The snapshots of an RBD image that becomes a volume, or of a volume that becomes an image. */
#include "control/jobs/jobs.h"

#include <ctype.h>

/* --- with an adopted image ------------------------------------------------------------------- */

/* Ceph takes any name: what ours cannot have becomes a dash. */
static void legal_name(struct control *c, const struct object *volume, const char *from,
                       char ret[NAME_SIZE])
{
        char base[NAME_SIZE - 8];

        snprintf(base, sizeof(base), "%s%s", isalnum((unsigned char)*from) ? "" : "snapshot", from);
        for (char *s = base; *s; s++)
                if (!isascii((unsigned char)*s) ||
                    (!isalnum((unsigned char)*s) && !strchr("._-", *s)))
                        *s = '-';
        snprintf(ret, NAME_SIZE, "%s", base);
        for (unsigned i = 2; model_by_name(c, (struct object *)volume, &kind_snapshot, ret); i++)
                snprintf(ret, NAME_SIZE, "%s-%u", base, i);
}

static int make_one(struct txn *t, struct object *volume, const struct volume_named *v,
                    struct err **e)
{
        char name[NAME_SIZE];
        struct object *s;
        sd_id128_t id;
        int r = id_parse(v->id, &id);

        if (r < 0)
                return err_set(e, -EPROTO, "blockd's answer makes no sense");
        if (model_by_id(t->c, id)) /* from before a crash */
                return 0;
        legal_name(t->c, volume, v->name, name);
        r = txn_create(t, &kind_snapshot, volume, name, &s, e);
        if (r < 0)
                return r;
        txn_set_id(t, s, id);
        txn_set_num(t, s, "size", v->size);
        if (!streq(name, v->name) && text_clean(v->name, strlen(v->name), false))
                txn_set_str(t, s, "description", v->name);
        txn_set_state(t, s, SNAPSHOT_AVAILABLE);
        return 0;
}

static int make_all(struct job *j, const struct volume_named *v, size_t n, struct err **e)
{
        struct object *o;
        struct txn t;
        int r = 0;

        txn_begin(&t, j->c, NULL);
        o = model_by_no(j->c, j->target);
        for (size_t i = 0; i < n && o && r == 0; i++)
                r = make_one(&t, o, &v[i], e);
        return txn_end(&t, r, e);
}

int manage_snapshots(struct job *j, const struct volume_named *v, size_t n, struct err **e)
{
        return n ? AGAIN(j->c, e, make_all(j, v, n, e)) : 0;
}

/* --- with a released volume ------------------------------------------------------------------ */

int release_check_snapshots(struct control *c, const struct object *o, struct err **e)
{
        struct collection *l = model_collection(c, o, &kind_snapshot);
        char label[NAME_SIZE + 32];

        for (size_t i = 0; l && i < l->n; i++) {
                const struct object *s = l->v[i];

                if (s->state != SNAPSHOT_AVAILABLE)
                        return err_set(e, -EBUSY, "%s is %s", object_label(s, label),
                                       object_state(s));
                for (unsigned k = 0; k < s->nrefs; k++)
                        if (s->refs[k]->kind == &kind_instance && !s->refs[k]->nameless)
                                return check_referrers(s, e);
        }
        return 0;
}

struct volume_named *release_names(struct job *j, size_t *ret_n)
{
        struct volume_named *v = NULL;
        struct collection *l;
        struct object *o;

        *ret_n = 0;
        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        l = o ? model_collection(j->c, o, &kind_snapshot) : NULL;
        if (l)
                v = xcalloc(l->n + 1, sizeof(*v));
        for (size_t i = 0; l && i < l->n; i++) {
                struct volume_named *s = &v[(*ret_n)++];

                id_text(s->id, l->v[i]->id);
                snprintf(s->name, sizeof(s->name), "%s", l->v[i]->name);
        }
        control_unlock(j->c);
        return v;
}

void release_drop_snapshots(struct txn *t, struct object *o)
{
        struct collection *l = model_collection(t->c, o, &kind_snapshot);

        while (l && l->n) {
                struct object *s = l->v[l->n - 1];

                volume_let_clones_go(t, s, NULL);
                txn_delete(t, s);
        }
}
