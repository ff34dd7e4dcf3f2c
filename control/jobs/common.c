/* What jobs share. */
#include "control/jobs/jobs.h"

/* clang-format off */
const struct job_def *const job_defs[] = {
        &job_tenant_create,
        &job_tenant_key,
        &job_tenant_delete,
        &job_tenant_adopt,
        &job_image_publish,
        &job_image_delete,
        &job_volume_create,
        &job_volume_extend,
        &job_volume_limit,
        &job_volume_accept,
        &job_volume_adopt,
        &job_volume_manage,
        &job_volume_release,
        &job_volume_revert,
        &job_volume_flatten,
        &job_volume_shrink,
        &job_volume_retype,
        &job_volume_check,
        &job_volume_scrub,
        &job_volume_delete,
        &job_volume_restore,
        &job_backup_create,
        &job_backup_verify,
        &job_backup_delete,
        &job_snapshot_create,
        &job_snapshot_delete,
        &job_instance_start,
        &job_instance_stop,
        &job_instance_reboot,
        &job_container_restart,
        &job_instance_pause,
        &job_instance_resume,
        &job_instance_attach,
        &job_instance_detach,
        &job_instance_delete,
        &job_instance_snapshot,
        &job_instance_image,
        &job_instance_backup,
        &job_instance_sync,
        &job_instance_suspend,
        &job_instance_restore,
        &job_instance_discard,
        &job_instance_resize,
        &job_instance_revert,
        &job_instance_rescue,
        &job_instance_unrescue,
        &job_instance_rebuild,
        &job_instance_shelve,
        &job_instance_keys,
        &job_instance_vcpus,
        &job_instance_nmi,
        &job_instance_password,
        &job_instance_memory,
        &job_instance_vnc,
        &job_instance_cdrom,   &job_instance_keep,
        &job_instance_plug,
        &job_instance_unplug,
        &job_instance_migrate,
        NULL,
};
/* clang-format on */

int job_facts(struct job *j, struct facts *ret, struct err **e)
{
        struct object *o;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        if (o) {
                id_text(ret->id, o->id);
                snprintf(ret->name, sizeof(ret->name), "%s", o->name);
                ret->state = o->state;
                ret->nameless = o->nameless;
                ret->adopted = o->kind == &kind_instance && object_num(o, "adopted");
                ret->container = o->kind == &kind_instance && instance_container(o);
        }
        control_unlock(j->c);
        return o ? 0 : err_set(e, -ENOENT, "it is gone");
}

int job_step_unreferenced(struct job *j, struct err **e)
{
        char label[NAME_SIZE + 32] = "";
        uint64_t watch = 0;
        struct object *o;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        if (o && o->nrefs) {
                watch = o->refs[0]->no;
                object_label(o->refs[0], label);
        }
        control_unlock(j->c);
        return watch ? job_wait(j, watch, 0, "%s still uses it", label) : 0;
}

int job_wait_busy(struct job *j, struct err **e)
{
        if (e)
                *e = err_free(*e);
        return job_wait(j, 0, 1000000, "its data is open");
}

int job_wait_blockd(struct job *j, struct err **e)
{
        if (e)
                *e = err_free(*e);
        return job_wait(j, 0, 1000000, "blockd does not answer");
}

int job_done_delete(struct job *j, struct txn *t, struct object *target, struct err **e)
{
        if (target)
                txn_delete(t, target);
        return 0;
}
