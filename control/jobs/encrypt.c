/* Making volumes by copying where a clone cannot be: encrypted ones of something plain, whose bytes
 * are encrypted on the way, and those whose source is in another pool.
 *
 * A volume may be written meanwhile, and a copy that was cut off goes over what is there already:
 * it is copied from a snapshot, which `base` names as long as it is there. */
#include "control/jobs/jobs.h"

enum { SECTOR = 4096 };

static int tenant_of(struct job *j, char ret[ID_TEXT_SIZE], struct err **e)
{
        struct object *o;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        if (o)
                id_text(ret, o->tenant->id);
        control_unlock(j->c);
        return o ? 0 : err_set(e, -ENOENT, "it is gone");
}

/* There already: from before a crash, or from before the size was raised. */
static int grow(struct job *j, const char *id, bool encrypted, uint64_t size, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        struct volume_facts f;
        int r = encrypted ? keys_unlock(j->c, id, e) : 0;

        if (r == 0)
                r = s->ops->stat(s, id, &f, e);
        if (r == 0 && encrypted && !f.family[0])
                return err_set(e, -EEXIST, "it is there, not encrypted");
        return r == 0 && f.size < size ? s->ops->resize(s, id, size, e) : r;
}

static int create_plain(struct job *j, const char *id, uint64_t size, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        _cleanup_err_ struct err *there = NULL;
        int r = s->ops->create(s, id, size, &there);

        if (r == -EEXIST)
                return grow(j, id, false, size, e);
        return r < 0 ? err_move(e, TAKE_PTR(there)) : 0;
}

static int create_encrypted(struct job *j, const char *id, uint64_t size, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        _cleanup_err_ struct err *there = NULL;
        char tenant[ID_TEXT_SIZE], passphrase[PASSPHRASE_SIZE];
        int r = tenant_of(j, tenant, e);

        if (r == 0)
                r = keys_passphrase(j->c, tenant, id, true, passphrase, e);
        if (r < 0)
                return r;
        r = s->ops->create_encrypted(s, id, size, passphrase, &there);
        explicit_bzero(passphrase, sizeof(passphrase));
        if (r == -EEXIST)
                return grow(j, id, true, size, e);
        return r < 0 ? err_move(e, TAKE_PTR(there)) : 0;
}

static int copy(struct job *j, const char *id, const char *image, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        struct volume_facts f;
        int r = s->ops->stat(s, image, &f, e);

        for (uint64_t off = 0; r == 0 && off < f.size;) {
                r = s->ops->copy(s, id, image, off, &off, e);
                if (r == 0) {
                        job_progress(j, off, f.size);
                        r = job_cancelled(j, e);
                }
        }
        return r;
}

/* `base` of an object that is copied already. */
static const char copied[] = "-";

static void base_get(struct job *j, char ret[ID_TEXT_SIZE])
{
        struct object *o;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        snprintf(ret, ID_TEXT_SIZE, "%s", o ? object_str(o, "base") : "");
        control_unlock(j->c);
}

static int base_set(struct job *j, const char *base, struct err **e)
{
        struct object *o;
        struct txn t;

        txn_begin(&t, j->c, NULL);
        o = model_by_no(j->c, j->target);
        if (o)
                txn_set_str(&t, o, "base", base);
        return txn_commit(&t, e);
}

/* The snapshot of a volume, for as long as it is copied. */
static int freeze(struct job *j, const char *volume, char base[ID_TEXT_SIZE], struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        int r = 0;

        if (!*base)
                r = base_set(j, id_text(base, id_new()), e);
        return r == 0 ? s->ops->snapshot(s, base, volume, e) : r;
}

int volume_make_copy(struct job *j, const char *id, const char *source, bool frozen, bool encrypted,
                     uint64_t size, struct err **e)
{
        char base[ID_TEXT_SIZE];
        int r;

        if (encrypted)
                size = (size + SECTOR - 1) / SECTOR * SECTOR;
        r = encrypted ? create_encrypted(j, id, size, e) : create_plain(j, id, size, e);
        base_get(j, base);
        if (r == 0 && *source && !frozen && !streq(base, copied)) {
                r = freeze(j, source, base, e);
                source = base;
        }
        if (r == 0 && *source && !streq(base, copied))
                r = copy(j, id, source, e);
        j->value = size;
        return r;
}

int volume_step_thaw(struct job *j, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        char base[ID_TEXT_SIZE];
        int r;

        base_get(j, base);
        if (!*base || streq(base, copied))
                return 0;
        r = s->ops->remove(s, base, e);
        if (r == -EBUSY)
                return job_wait_busy(j, e);
        return r == 0 ? base_set(j, copied, e) : r;
}

int volume_undo_freeze(struct job *j)
{
        struct volume_service *s = j->c->cfg.volumes;
        char base[ID_TEXT_SIZE];

        base_get(j, base);
        return *base && !streq(base, copied) ? s->ops->remove(s, base, NULL) : 0;
}

int volume_rekey_for(struct job *j, const char *id, const char *from, const char *to,
                     struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        char old[PASSPHRASE_SIZE], next[PASSPHRASE_SIZE];
        struct volume_facts f;
        int r = s->ops->stat(s, id, &f, e);

        if (r < 0)
                return r;
        if (!f.family[0])
                return err_set(e, -EINVAL, "it is not encrypted");
        r = keys_passphrase(j->c, from, f.family, false, old, e);
        if (r == 0)
                r = keys_passphrase(j->c, to, f.family, true, next, e);
        if (r == 0)
                r = s->ops->rekey(s, id, old, next, e);
        explicit_bzero(old, sizeof(old));
        explicit_bzero(next, sizeof(next));
        return r;
}
