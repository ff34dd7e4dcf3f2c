/* Guests that were in libvirt before the cloud: brought in as they are, and let go of again.
 *
 * An adopted instance has the domain's UUID as its id, so all that is done to it finds the domain.
 * Its definition, its disks and networks stay libvirt's; what the cloud adds is its mark in the
 * domain's metadata, with which events and lists know it for ours. */
#include "control/jobs/jobs.h"

#include "common/fileio.h"

static int step_adopt(struct job *j, struct err **e)
{
        _cleanup_free_ char *domain = xstrndup(j->args, strcspn(j->args, " "));
        _cleanup_free_ char *dir = NULL;
        struct guest_found f = {};
        struct compute *compute;
        int r = instance_compute(j, &compute, e);

        if (r == 0 && !compute->ops->adopt)
                r = err_set(e, -ENOTSUP, "guests cannot be adopted here");
        if (r == 0)
                r = compute->ops->adopt(compute, domain, &f, e);
        if (r < 0)
                return r;
        dir = xcheck(path_printf("%s/instances/%s", j->c->cfg.state, f.uuid));
        r = mkdir_parents(dir, 0711, e); /* of what a suspend writes */
        if (r < 0)
                return r;
        free(j->result);
        j->result = xcheck(path_printf("%s %u %" PRIu64 " %u", f.uuid, f.vcpus, f.memory, f.state));
        return 0;
}

static int make(struct job *j, struct txn *t, struct object *tenant, const char *name,
                struct err **e)
{
        char uuid[ID_TEXT_SIZE];
        unsigned vcpus, state;
        uint64_t memory;
        struct object *o;
        sd_id128_t id;
        int r;

        if (sscanf(j->result ?: "", "%36s %u %" SCNu64 " %u", uuid, &vcpus, &memory, &state) != 4 ||
            id_parse(uuid, &id) < 0)
                return err_set(e, -EIO, "the hypervisor gave it no UUID");
        o = model_by_id(t->c, id);
        if (o)
                return o->tenant == tenant && object_num(o, "adopted")
                               ? 0
                               : err_set(e, -EEXIST, "%s '%s' has that UUID", o->kind->name,
                                         o->name);
        r = txn_create(t, &kind_instance, tenant, name, &o, e);
        if (r < 0)
                return r;
        txn_set_id(t, o, id);
        txn_set_num(t, o, "adopted", 1);
        txn_set_num(t, o, "vcpus", vcpus);
        txn_set_num(t, o, "memory", memory);
        txn_set_str(t, o, "host", t->c->cfg.host);
        txn_set_state(t, o,
                      state == GUEST_RUNNING  ? INSTANCE_ACTIVE
                      : state == GUEST_PAUSED ? INSTANCE_PAUSED
                                              : INSTANCE_STOPPED);
        txn_event(t, o, "adopted, as it is");
        return 0;
}

static int done_adopt(struct job *j, struct txn *t, struct object *tenant, struct err **e)
{
        const char *name = strchr(j->args, ' ');

        return tenant ? make(j, t, tenant, name ? name + 1 : j->args, e) : 0;
}

/* The mark goes, too, if nothing came of it: another tenant may ask. */
static int undo_adopt(struct job *j)
{
        struct compute *compute;
        char uuid[ID_TEXT_SIZE];
        struct object *o;
        sd_id128_t id;

        if (sscanf(j->result ?: "", "%36s", uuid) != 1 || id_parse(uuid, &id) < 0)
                return 0;
        control_rdlock(j->c);
        o = model_by_id(j->c, id);
        control_unlock(j->c);
        if (!o && instance_compute(j, &compute, NULL) == 0)
                compute->ops->release(compute, uuid, NULL);
        return 0;
}

int tenant_adopt(struct txn *t, struct object *o, const char *args, struct err **e)
{
        size_t n = strcspn(args, " ");
        const char *name = args + n + strspn(args + n, " ");
        _cleanup_free_ char *domain = xstrndup(args, n), *both = NULL;

        if (!*domain)
                return err_set(e, -EINVAL, "adopt takes the name of a libvirt domain");
        if (!*name)
                name = domain;
        if (!name_valid(name)) {
                err_at(e, -EINVAL, args, strlen(args), name == domain ? 0 : name - args,
                       strlen(name), "no name for an instance");
                return err_hint(e, -EINVAL, "adopt DOMAIN NAME");
        }
        if (model_by_name(t->c, o, &kind_instance, name))
                return err_set(e, -EEXIST, "instance '%s' exists already", name);
        both = xcheck(path_printf("%s %s", domain, name));
        job_start(t, o, &job_tenant_adopt, both);
        return 0;
}

int instance_not_adopted(const struct object *o, const char *what, struct err **e)
{
        if (!object_num(o, "adopted"))
                return 0;
        err_set(e, -ENOTSUP, "%s: '%s' was adopted: its disks and its definition are libvirt's",
                what, o->name);
        return -ENOTSUP;
}

static const struct job_step adopt_steps[] = {{"adopt", step_adopt}};

const struct job_def job_tenant_adopt = {.op = "tenant.adopt",
                                         .deadline = 120,
                                         .here = true,
                                         .steps = adopt_steps,
                                         .nsteps = ARRAY_SIZE(adopt_steps),
                                         .done = done_adopt,
                                         .undo = undo_adopt};
