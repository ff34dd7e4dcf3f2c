/* Which pool a volume's bytes are in, and how they go to another one.
 *
 * The pools that blockd has are words of the configuration, "local" or "rbd:POOL[/NAMESPACE]"; the
 * first is where volumes are unless their type says otherwise.  In Ceph each tenant's volumes are
 * in a namespace of its own.
 *
 * retype: the volume is copied into the pool of its new type, piece by piece; then blockd is told
 * that the copy is the volume, which is the point of no return: before it a failure leaves it where
 * it was. */
#include "control/jobs/jobs.h"

/* The next word of the list; "": none. */
static const char *next_pool(const char *list, char ret[POOL_SIZE])
{
        size_t n;

        list += strspn(list, " \t,");
        n = strcspn(list, " \t,");
        snprintf(ret, POOL_SIZE, "%.*s", (int)n, list);
        return list + n;
}

static const char *pools(const struct control *c)
{
        return c->cfg.pool && *c->cfg.pool ? c->cfg.pool : "local";
}

static bool is_local(const char *label)
{
        return streq(label, "local");
}

void pool_default(const struct control *c, char ret[POOL_SIZE])
{
        next_pool(pools(c), ret);
}

bool pool_ceph(const struct control *c, char ret[POOL_SIZE])
{
        for (const char *p = next_pool(pools(c), ret); *ret; p = next_pool(p, ret))
                if (strncmp(ret, "rbd:", 4) == 0)
                        return true;
        return false;
}

int pool_check(const struct control *c, const char *label, struct err **e)
{
        char one[POOL_SIZE];

        for (const char *p = next_pool(pools(c), one); *one; p = next_pool(p, one))
                if (streq(one, label))
                        return 0;
        err_at(e, -EINVAL, label, strlen(label), 0, strlen(label), "no pool of this cloud");
        return err_hint(e, -EINVAL, "%s", pools(c));
}

/* One of a cloud that knew its one Ceph pool by its driver's name only. */
bool pool_same(const struct control *c, const char *a, const char *b)
{
        char first[POOL_SIZE];

        if (streq(a, b))
                return true;
        if ((!streq(a, "rbd") && !streq(b, "rbd")) || !pool_ceph(c, first))
                return false;
        return streq(streq(a, "rbd") ? b : a, first);
}

/* rbd:POOL/[NAMESPACE/]IMAGE is in the pool that is so called, whatever namespace our own is. */
int pool_of_image(const struct control *c, const char *text, char ret[POOL_SIZE],
                  const char **ret_name, struct err **e)
{
        const size_t n = strcspn(text, "/");

        for (const char *p = next_pool(pools(c), ret); *ret; p = next_pool(p, ret))
                if (strncmp(ret, "rbd:", 4) == 0 && strcspn(ret, "/") == n &&
                    strncmp(ret, text, n) == 0 && text[n] == '/' && text[n + 1]) {
                        *ret_name = text + n + 1;
                        return 0;
                }
        err_at(e, -EINVAL, text, strlen(text), 0, n, "no image in a pool of this cloud");
        return err_hint(e, -EINVAL, "rbd:POOL/[NAMESPACE/]IMAGE; pools are: %s", pools(c));
}

static void pool_of_type(const struct control *c, const struct object *type, char ret[POOL_SIZE])
{
        const char *own = type ? object_str(type, "pool") : "";

        if (*own)
                snprintf(ret, POOL_SIZE, "%s", own);
        else
                pool_default(c, ret);
}

void volume_settle_in(struct txn *t, struct object *o, const char *label)
{
        txn_set_str(t, o, "pool", label);
        txn_set_str(t, o, "host", is_local(label) ? t->c->cfg.host : NULL);
}

void volume_follow_type(struct txn *t, struct object *o)
{
        char label[POOL_SIZE];

        pool_of_type(t->c, volume_type(t->c, o), label);
        volume_settle_in(t, o, label);
}

bool volume_fits_type(const struct control *c, const struct object *o, const struct object *type)
{
        char label[POOL_SIZE];

        pool_of_type(c, type, label);
        return pool_same(c, label, object_str(o, "pool"));
}

void pool_of(const struct control *c, const struct object *o, char ret[POOL_SIZE])
{
        const struct object *v = o->kind == &kind_snapshot ? o->holder : o;

        if (v->kind == &kind_volume)
                snprintf(ret, POOL_SIZE, "%s", object_str(v, "pool"));
        else
                pool_default(c, ret); /* images */
}

int volume_place_new(struct job *j, const char *id, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        char label[POOL_SIZE] = "", space[NAME_SIZE] = "";
        struct object *o;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        if (o && o->kind == &kind_volume) {
                pool_of(j->c, o, label);
                snprintf(space, sizeof(space), "%s", o->tenant->name);
        }
        control_unlock(j->c);
        if (!*label || !s->ops->place || streq(pools(j->c), "local"))
                return 0;
        return s->ops->place(s, id, label, is_local(label) ? "" : space, e);
}

/* --- retype ------------------------------------------------------------------------------------
 */

static int check_retype(struct txn *t, struct object *o, const struct object *type, struct err **e)
{
        bool encrypted = type && object_num(type, "encrypted");
        int r;

        if (encrypted && !volume_encrypted(o))
                return err_set(e, -EINVAL, "a volume is encrypted from its first byte or never");
        if (volume_fits_type(t->c, o, type))
                return 0;
        r = volume_check_snapshots(t, o, e);
        if (r == 0 && o->writers)
                r = err_set(e, -EBUSY, "volume '%s' is being written through its data", o->name);
        if (r == 0 &&
            (job_live(t->c, o->no, &job_volume_check) || job_live(t->c, o->no, &job_volume_scrub) ||
             job_live(t->c, o->no, &job_volume_flatten)))
                r = err_set(e, -EBUSY, "another job is at work on it: see jobs/");
        return r < 0 ? r : volume_let_clones_go(t, o, e);
}

int volume_retype(struct txn *t, struct object *o, const char *args, struct err **e)
{
        char from[POOL_SIZE], to[POOL_SIZE], words[NAME_SIZE + 2 * POOL_SIZE];
        const struct object *type = NULL;
        int r;

        if (!*args)
                return err_set(e, -EINVAL, "retype takes the name of a type, or - for none");
        if (!streq(args, "-") && !(type = model_by_name(t->c, NULL, &kind_volume_type, args)))
                return err_at(e, -ENOENT, args, strlen(args), 0, strlen(args),
                              "there is no such volume type");
        r = check_retype(t, o, type, e);
        if (r < 0)
                return r;
        if (volume_fits_type(t->c, o, type)) {
                txn_set_str(t, o, "type", type ? type->name : NULL);
                volume_limits_due(t, o);
                return 0;
        }
        pool_of(t->c, o, from);
        pool_of_type(t->c, type, to);
        snprintf(words, sizeof(words), "%s %s %s", args, from, to);
        txn_set_state(t, o, VOLUME_MOVING);
        job_start(t, o, &job_volume_retype, words);
        return 0;
}

struct journey {
        struct volume_journey words;
        char id[ID_TEXT_SIZE], tenant[ID_TEXT_SIZE], space[NAME_SIZE], type[NAME_SIZE];
        char from[POOL_SIZE], to[POOL_SIZE], passphrase[PASSPHRASE_SIZE];
        bool encrypted;
};

static int journey_get(struct job *j, struct journey *ret, struct err **e)
{
        struct object *o;

        *ret = (struct journey){};
        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        if (o) {
                id_text(ret->id, o->id);
                id_text(ret->tenant, o->tenant->id);
                snprintf(ret->space, sizeof(ret->space), "%s", o->tenant->name);
                ret->encrypted = volume_encrypted(o);
        }
        control_unlock(j->c);
        if (!o || sscanf(j->args, "%63s %255s %255s", ret->type, ret->from, ret->to) != 3)
                return err_set(e, -ENOENT, "it is gone");
        if (is_local(ret->to))
                *ret->space = '\0';
        ret->words = (struct volume_journey){.id = ret->id,
                                             .from = ret->from,
                                             .to = ret->to,
                                             .space = ret->space,
                                             .passphrase = ret->passphrase};
        return 0;
}

static int step_copy(struct job *j, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        uint64_t next = 0, size = 1;
        struct journey w;
        int r = journey_get(j, &w, e);

        if (r == 0 && !s->ops->move)
                r = err_set(e, -ENOTSUP, "this volume service has one pool only");
        if (r == 0 && w.encrypted)
                r = keys_passphrase(j->c, w.tenant, w.id, true, w.passphrase, e);
        while (r == 0 && next < size) {
                w.words.off = next;
                r = s->ops->move(s, &w.words, &next, &size, e);
                if (r == 0) {
                        job_progress(j, next, size);
                        r = job_cancelled(j, e);
                }
        }
        explicit_bzero(w.passphrase, sizeof(w.passphrase));
        return r == -EBUSY ? job_wait_busy(j, e) : r;
}

/* What backups kept of it for the next one stays behind, and goes. */
static int step_switch(struct job *j, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        struct journey w;
        int r = journey_get(j, &w, e);

        if (r == 0)
                r = backup_drop_snapshots(j, j->target, false, e);
        if (r == 0)
                r = s->ops->move_end(s, &w.words, true, e);
        return r == -EBUSY ? job_wait_busy(j, e) : r;
}

static int done_retype(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        char type[NAME_SIZE], from[POOL_SIZE], to[POOL_SIZE];
        struct link *l;

        if (!o || sscanf(j->args, "%63s %255s %255s", type, from, to) != 3)
                return 0;
        l = object_link(o, kind_link(o->kind, "source"), NULL);
        if (l) /* it has nothing of it any more */
                txn_unlink(t, o, l);
        txn_set_str(t, o, "type", streq(type, "-") ? NULL : type);
        volume_settle_in(t, o, to);
        txn_event(t, o, "moved from pool %s to %s", from, to);
        if (o->state == VOLUME_MOVING)
                txn_set_state(t, o, volume_rest(o));
        volume_limits_due(t, o);
        return 0;
}

static int undo_retype(struct job *j)
{
        struct volume_service *s = j->c->cfg.volumes;
        struct journey w;

        if (j->step > 0 || journey_get(j, &w, NULL) < 0 || !s->ops->move_end)
                return 0;
        return s->ops->move_end(s, &w.words, false, NULL);
}

static void failed_retype(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (o && o->state == VOLUME_MOVING)
                txn_set_state(t, o, j->step > 0 ? VOLUME_ERROR : volume_rest(o));
}

static const struct job_step steps[] = {{"copy", step_copy}, {"switch", step_switch}};

const struct job_def job_volume_retype = {.op = "volume.retype",
                                          .deadline = 7 * 86400,
                                          .cancellable = true,
                                          .patient = true,
                                          .steps = steps,
                                          .nsteps = ARRAY_SIZE(steps),
                                          .done = done_retype,
                                          .failed = failed_retype,
                                          .undo = undo_retype};
