/* Making encrypted volumes.  A plain image's bytes are copied, and encrypted on the way: a clone
 * would share them. */
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
static int grow(struct job *j, const char *id, uint64_t size, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        struct volume_facts f;
        int r = keys_unlock(j->c, id, e);

        if (r == 0)
                r = s->ops->stat(s, id, &f, e);
        if (r == 0 && !f.family[0])
                return err_set(e, -EEXIST, "it is there, not encrypted");
        return r == 0 && f.size < size ? s->ops->resize(s, id, size, e) : r;
}

static int create(struct job *j, const char *id, uint64_t size, struct err **e)
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
                return grow(j, id, size, e);
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

int volume_make_encrypted(struct job *j, const char *id, const char *image, uint64_t size,
                          struct err **e)
{
        int r;

        size = (size + SECTOR - 1) / SECTOR * SECTOR;
        r = create(j, id, size, e);
        if (r == 0 && *image)
                r = copy(j, id, image, e);
        j->value = size;
        return r;
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
