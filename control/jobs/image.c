/* Publishing and deleting images. */
#include "control/jobs/jobs.h"

enum { VIRTUAL_MAX_SHIFT = 44 }; /* 16 TiB: no image is larger */

struct claim {
        char id[ID_TEXT_SIZE], host[NAME_SIZE];
        char hint[32], format[16], checksum[65];
        uint64_t size;
};

static int claim_get(struct job *j, struct claim *ret, struct err **e)
{
        struct object *o;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        if (o) {
                id_text(ret->id, o->id);
                snprintf(ret->host, sizeof(ret->host), "%s", object_str(o, "host"));
                snprintf(ret->hint, sizeof(ret->hint), "%s", object_str(o, "hint"));
                snprintf(ret->format, sizeof(ret->format), "%s", object_str(o, "format"));
                snprintf(ret->checksum, sizeof(ret->checksum), "%s",
                         object_str(o, "expect_checksum"));
                ret->size = object_num(o, "expect_size");
        }
        control_unlock(j->c);
        if (o && *ret->host && !streq(ret->host, j->c->cfg.host)) {
                err_set(e, -EHOSTDOWN, "the bytes uploaded are on host '%s', which is down",
                        ret->host);
                err_hint(e, -EHOSTDOWN,
                         "upload it again, or wait for that host and activate it then");
                return -EHOSTDOWN;
        }
        return o ? 0 : err_set(e, -ENOENT, "it is gone");
}

static int report(void *arg, uint64_t done, uint64_t total)
{
        struct job *j = arg;

        job_progress(j, done, total);
        return job_cancelled(j, NULL);
}

static int inspect(struct job *j, struct image_facts *f, struct err **e)
{
        struct image_service *s = j->c->cfg.images;
        struct claim c;
        const char *hint;
        int r = claim_get(j, &c, e);

        if (r < 0)
                return r;
        hint = *c.format ? c.format : *c.hint ? c.hint : NULL;
        r = s->ops->inspect(s, c.id, hint, 1ULL << VIRTUAL_MAX_SHIFT, f, e);
        if (r < 0)
                return r;
        if (c.size && c.size != f->file_size)
                return err_set(e, -EINVAL,
                               "%" PRIu64 " bytes were declared and %" PRIu64 " arrived", c.size,
                               f->file_size);
        return 0;
}

static void store_facts(struct txn *t, struct object *o, const struct image_facts *f,
                        const char *checksum)
{
        txn_set_str(t, o, "format", image_format_name(f->format));
        txn_set_num(t, o, "size", f->file_size);
        txn_set_num(t, o, "virtual_size", f->virtual_size);
        txn_set_str(t, o, "checksum", checksum);
}

/* What it is, its size and its checksum; kept in the record so that people can watch. */
static int step_inspect(struct job *j, struct err **e)
{
        struct image_service *s = j->c->cfg.images;
        struct image_progress p = {report, j};
        struct image_facts f = {};
        struct object *o;
        struct claim c;
        char sum[65];
        struct txn t;
        int r = inspect(j, &f, e);

        if (r == 0)
                r = claim_get(j, &c, e);
        if (r == 0)
                r = s->ops->checksum(s, c.id, sum, &p, e);
        if (r < 0)
                return r;
        if (*c.checksum && !streq(c.checksum, sum))
                return err_set(e, -EINVAL, "SHA-256 is %s, declared was %s", sum, c.checksum);
        txn_begin(&t, j->c, NULL);
        o = model_by_no(j->c, j->target);
        if (o)
                store_facts(&t, o, &f, sum);
        return txn_commit(&t, e);
}

/* What volumes are made from; and, where volumes are within reach of every host, what the others
 * boot. */
static int make_view(struct job *j, const struct claim *c, const struct image_facts *f, char **ret,
                     struct err **e)
{
        struct image_service *s = j->c->cfg.images;
        struct image_progress p = {report, j};

        if (image_format_bootable(f->format))
                return s->ops->publish(s, c->id, f, &p, ret, e);
        return pool_shared(j->c) ? s->ops->path(s, c->id, ret, e) : 0;
}

static int step_publish(struct job *j, struct err **e)
{
        struct image_service *s = j->c->cfg.images;
        struct volume_service *v = j->c->cfg.volumes;
        _cleanup_free_ char *path = NULL;
        struct image_facts f = {};
        struct claim c;
        int r = inspect(j, &f, e); /* again: after a crash only the bytes are to be believed */

        if (r == 0)
                r = claim_get(j, &c, e);
        if (r == 0)
                r = make_view(j, &c, &f, &path, e);
        if (r < 0 || !path)
                return r;
        r = v->ops->import(v, c.id, path, e);
        if (r == -ECONNREFUSED)
                return job_wait_blockd(j, e);
        if (r == -EEXIST) { /* imported before a crash */
                struct volume_facts have;

                if (e)
                        *e = err_free(*e);
                r = v->ops->stat(v, c.id, &have, e);
        }
        if (r == 0)
                r = s->ops->unpublish(s, c.id, e);
        return r;
}

static int done_publish(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        if (o && o->state == IMAGE_SAVING)
                txn_set_state(t, o, IMAGE_ACTIVE);
        return 0;
}

static void failed(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (o && !o->nameless)
                txn_set_state(t, o, IMAGE_ERROR);
}

static int step_remove(struct job *j, struct err **e)
{
        struct image_service *s = j->c->cfg.images;
        struct volume_service *v = j->c->cfg.volumes;
        struct facts f;
        int r = job_facts(j, &f, e);

        if (r == 0)
                r = v->ops->remove(v, f.id, e);
        if (r == -EBUSY)
                return job_wait_busy(j, e);
        if (r == 0)
                r = s->ops->remove(s, f.id, e);
        return r;
}

static void failed_delete(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (o)
                txn_set_state(t, o, IMAGE_ERROR);
}

static const struct job_step publish_steps[] = {{"inspect", step_inspect},
                                                {"publish", step_publish}};
static const struct job_step delete_steps[] = {{"unreferenced", job_step_unreferenced},
                                               {"remove", step_remove}};

const struct job_def job_image_publish = {.op = "image.publish",
                                          .deadline = 86400,
                                          .cancellable = true,
                                          .steps = publish_steps,
                                          .nsteps = ARRAY_SIZE(publish_steps),
                                          .done = done_publish,
                                          .failed = failed};
const struct job_def job_image_delete = {.op = "image.delete",
                                         .deadline = 3600,
                                         .insists = true,
                                         .steps = delete_steps,
                                         .nsteps = ARRAY_SIZE(delete_steps),
                                         .done = job_done_delete,
                                         .failed = failed_delete};
