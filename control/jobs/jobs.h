/* The jobs of the kinds, and what kinds and jobs share. */
#pragma once

#include "control/job.h"

extern const struct job_def job_tenant_create, job_tenant_delete, job_image_publish,
        job_image_delete, job_volume_create, job_volume_extend, job_volume_delete, job_volume_limit,
        job_volume_check, job_volume_scrub,
        job_instance_start, job_instance_stop, job_instance_reboot, job_instance_pause,
        job_instance_resume, job_instance_attach, job_instance_detach, job_instance_delete,
        job_instance_sync;

/* States, in the order of the kinds' tables. */
enum { TENANT_CREATING, TENANT_ACTIVE, TENANT_DELETING, TENANT_ERROR };
enum { IMAGE_QUEUED, IMAGE_SAVING, IMAGE_ACTIVE, IMAGE_DELETING, IMAGE_ERROR };
enum { VOLUME_DRAFT, VOLUME_CREATING, VOLUME_AVAILABLE, VOLUME_IN_USE, VOLUME_ATTACHING,
       VOLUME_DETACHING, VOLUME_EXTENDING, VOLUME_DELETING, VOLUME_ERROR };
enum { INSTANCE_DRAFT, INSTANCE_STARTING, INSTANCE_ACTIVE, INSTANCE_STOPPING, INSTANCE_STOPPED,
       INSTANCE_REBOOTING, INSTANCE_PAUSED, INSTANCE_DELETING, INSTANCE_ERROR };

/* What a step needs of its target, copied under the lock.  -ENOENT when it is gone. */
struct facts {
        char id[ID_TEXT_SIZE];
        char name[NAME_SIZE];
        unsigned state;
        bool nameless;
};
int job_facts(struct job *j, struct facts *ret, struct err **e);
/* Waits until nothing links to the target any more: the first step of every delete. */
int job_step_unreferenced(struct job *j, struct err **e);
/* Somebody reads its data still: try again in a moment.  Takes e's words. */
int job_wait_busy(struct job *j, struct err **e);
/* blockd is down and comes back by itself: what was asked for is done then.  Takes e's words. */
int job_wait_blockd(struct job *j, struct err **e);
void job_done_delete(struct txn *t, struct object *target);

/* volume.c: in-use if an instance holds it, else available. */
unsigned volume_rest(const struct object *o);
int volume_remove(struct txn *t, struct object *o, struct err **e);
/* limit.c: starts the job if the limits that are written are not in force. */
void volume_limits_due(struct txn *t, struct object *o);

/* instance.c */
int instance_compute(struct job *j, struct compute **ret, struct err **e);
/* Closes every export of the target's disks.  Repeatable. */
int instance_unexport(struct job *j, struct err **e);
/* Files of an instance on the host; the caller frees. */
char *instance_dir(struct control *c, const struct object *o);
char *instance_console_log(struct control *c, const struct object *o);
char *instance_console(struct control *c, const struct object *o);
/* Puts the volumes that are linked back to rest when the instance lets go of them. */
void instance_release_volume(struct txn *t, struct object *volume);
