/* The jobs of the kinds, and what kinds and jobs share. */
#pragma once

#include "control/job.h"

extern const struct job_def job_tenant_create, job_tenant_key, job_tenant_delete, job_image_publish,
        job_image_delete, job_volume_create, job_volume_extend, job_volume_delete, job_volume_limit,
        job_snapshot_create, job_snapshot_delete, job_volume_check, job_volume_scrub,
        job_instance_start, job_instance_stop, job_instance_reboot, job_container_restart,
        job_instance_pause, job_instance_resume, job_instance_attach, job_instance_detach,
        job_instance_delete, job_instance_snapshot, job_instance_sync, job_instance_suspend,
        job_instance_restore, job_instance_rescue, job_instance_unrescue, job_instance_rebuild,
        job_instance_shelve, job_instance_resize, job_instance_revert, job_instance_image,
        job_instance_vcpus, job_instance_backup, job_instance_discard, job_instance_keys,
        job_instance_nmi, job_instance_password, job_instance_memory, job_instance_vnc,
        job_instance_cdrom, job_instance_migrate, job_instance_keep;
extern const struct job_def job_volume_accept, job_volume_adopt, job_volume_manage,
        job_volume_release, job_volume_revert, job_volume_flatten, job_volume_shrink,
        job_volume_retype;
extern const struct job_def job_backup_create, job_backup_verify, job_backup_delete,
        job_volume_restore;
extern const struct job_def job_tenant_adopt;
extern const struct job_def job_instance_plug, job_instance_unplug;

/* States, in the order of the kinds' tables. */
enum { TENANT_CREATING, TENANT_ACTIVE, TENANT_DELETING, TENANT_ERROR };
enum { IMAGE_QUEUED, IMAGE_SAVING, IMAGE_ACTIVE, IMAGE_DELETING, IMAGE_ERROR };
enum {
        VOLUME_DRAFT,
        VOLUME_CREATING,
        VOLUME_AVAILABLE,
        VOLUME_IN_USE,
        VOLUME_ATTACHING,
        VOLUME_DETACHING,
        VOLUME_EXTENDING,
        VOLUME_DELETING,
        VOLUME_ERROR,
        VOLUME_OFFERED,
        VOLUME_RELEASING,
        VOLUME_SHRINKING,
        VOLUME_REVERTING,
        VOLUME_RESTORING,
        VOLUME_MOVING
};
enum { BACKUP_DRAFT, BACKUP_CREATING, BACKUP_AVAILABLE, BACKUP_DELETING, BACKUP_ERROR };
enum { SUBNET_DRAFT, SUBNET_ACTIVE };
enum { SNAPSHOT_CREATING, SNAPSHOT_AVAILABLE, SNAPSHOT_DELETING, SNAPSHOT_ERROR };
enum {
        INSTANCE_DRAFT,
        INSTANCE_STARTING,
        INSTANCE_ACTIVE,
        INSTANCE_STOPPING,
        INSTANCE_STOPPED,
        INSTANCE_REBOOTING,
        INSTANCE_PAUSED,
        INSTANCE_DELETING,
        INSTANCE_ERROR,
        INSTANCE_SUSPENDING,
        INSTANCE_SUSPENDED,
        INSTANCE_RESUMING,
        INSTANCE_RESCUING,
        INSTANCE_RESCUED,
        INSTANCE_UNRESCUING,
        INSTANCE_REBUILDING,
        INSTANCE_SHELVING,
        INSTANCE_SHELVED,
        INSTANCE_RESIZING,
        INSTANCE_RESIZED,
        INSTANCE_REVERTING,
        INSTANCE_MIGRATING,
        INSTANCE_DELETED,
        INSTANCE_LAST = INSTANCE_DELETED
};

/* No guest is to be there: one that is, though nothing is under way, is ended. */
#define INSTANCE_OFF                                                                               \
        (STATE(INSTANCE_DRAFT) | STATE(INSTANCE_STOPPED) | STATE(INSTANCE_SUSPENDED) |             \
         STATE(INSTANCE_SHELVED) | STATE(INSTANCE_DELETED))
/* A guest is there, as far as we know: what it really does is looked at now and then. */
#define INSTANCE_RUNS                                                                              \
        (STATE(INSTANCE_ACTIVE) | STATE(INSTANCE_PAUSED) | STATE(INSTANCE_RESCUED) |               \
         STATE(INSTANCE_RESIZED))

/* What a step needs of its target, copied under the lock.  -ENOENT when it is gone. */
struct facts {
        char id[ID_TEXT_SIZE];
        char name[NAME_SIZE];
        unsigned state;
        bool nameless, adopted, container;
};
int job_facts(struct job *j, struct facts *ret, struct err **e);
/* Waits until nothing links to the target any more: the first step of every delete. */
int job_step_unreferenced(struct job *j, struct err **e);
/* Somebody reads its data still: try again in a moment.  Takes e's words. */
int job_wait_busy(struct job *j, struct err **e);
/* blockd is down and comes back by itself: what was asked for is done then.  Takes e's words. */
int job_wait_blockd(struct job *j, struct err **e);
/* done() of a deletion: the object goes. */
int job_done_delete(struct job *j, struct txn *t, struct object *target, struct err **e);

/* volume.c: -EINVAL: the volume cannot have that size. */
int volume_check_size(const struct object *o, uint64_t size, struct err **e);
/* volume.c: bytes of what a volume is made from. */
uint64_t volume_source_size(const struct object *source);
/* volume.c: in-use if an instance holds it, else available. */
unsigned volume_rest(const struct object *o);
int volume_remove(struct txn *t, struct object *o, struct err **e);
/* Steps and ends that making a volume shares with restoring one. */
int volume_step_realise(struct job *j, struct err **e);
int volume_done_create(struct job *j, struct txn *t, struct object *o, struct err **e);
void volume_failed_create(struct job *j, struct txn *t, struct object *o, const struct err *err);
/* snapshot.c: volumes made from o, and backups of it, live on without it and forget it; those being
 * made are waited for by its deletion.  -EBUSY when an instance has it. */
int volume_let_clones_go(struct txn *t, struct object *o, struct err **e);
/* encrypt.c: makes the target, size bytes (encrypted: or a few more), of copied bytes of the volume
 * `source` ("": none), which is frozen or may be written meanwhile; 0: j->value is its size.
 * Repeatable. */
int volume_make_copy(struct job *j, const char *id, const char *source, bool frozen, bool encrypted,
                     uint64_t size, struct err **e);
/* The step after it, and its undo: the snapshot that it copied from goes. */
int volume_step_thaw(struct job *j, struct err **e);
int volume_undo_freeze(struct job *j);
/* tenant.c: this host gets the Unix groups of all tenants, and loses those that it made of tenants
 * that are no more.  Blocks. */
void tenant_groups(struct control *c);
/* encrypt.c: the volume's family is opened by the key of tenant `to` from now on, by that of `from`
 * no more; ids.  Repeatable.  -EBUSY: others share it. */
int volume_rekey_for(struct job *j, const char *id, const char *from, const char *to,
                     struct err **e);
/* limit.c: starts the job if the limits that are written are not in force. */
void volume_limits_due(struct txn *t, struct object *o);
/* The same for every volume, each in a transaction of its own; no lock held. */
void volume_limits_due_all(struct control *c);

/* snapshot.c: waits for snapshots (and backups) of the target that were asked for and are not taken
 * yet: they are to have what it holds before the caller changes that. */
int job_wait_snapshots(struct job *j, bool backups);
/* volume.c: -EBUSY when it has snapshots, or a backup is being taken of it. */
int volume_check_snapshots(struct txn *t, const struct object *o, struct err **e);
int volume_check_backups(const struct object *o, struct err **e);

/* manage-snaps.c: the target gets the snapshots that it came with.  Repeatable. */
int manage_snapshots(struct job *j, const struct volume_named *v, size_t n, struct err **e);
/* -EBUSY: a snapshot is not at rest, or an instance has it. */
int release_check_snapshots(struct control *c, const struct object *o, struct err **e);
/* What the target's snapshots are called; the caller frees. */
struct volume_named *release_names(struct job *j, size_t *ret_n);
/* They are no snapshots of ours any more. */
void release_drop_snapshots(struct txn *t, struct object *o);
/* Whether a clone of that image, volume or snapshot can boot. */
bool volume_source_boots(const struct object *source);

/* transfer.c: the hooks of `offer`, `withdraw` and the attribute `transfer`. */
int volume_offer(struct txn *t, struct object *o, const char *args, struct err **e);
int volume_withdraw(struct txn *t, struct object *o, const char *args, struct err **e);
int volume_accept(struct txn *t, struct object *o, union value v, struct err **e);
void volume_render_transfer(struct control *c, const struct object *o, struct buf *out);
/* -EBUSY when it is on its way to another tenant already. */
int volume_offer_claimed(const struct object *o, struct err **e);

/* revert.c, shrink.c: the verbs. */
int volume_revert(struct txn *t, struct object *o, const char *args, struct err **e);
int volume_flatten(struct txn *t, struct object *o, const char *args, struct err **e);
int volume_shrink(struct txn *t, struct object *o, const char *args, struct err **e);

/* manage.c: the hooks of the attribute `manage` and the verb `release`. */
int volume_manage(struct txn *t, struct object *o, union value v, struct err **e);
int volume_release(struct txn *t, struct object *o, const char *args, struct err **e);

/* volume-type.c.  Model held: a volume's type, NULL if it has none; whether several instances may
 * have it; and how many have it now. */
struct object *volume_type(struct control *c, const struct object *v);
bool volume_shared(struct control *c, const struct object *v);
unsigned volume_holders(const struct object *v);
/* Of a volume, or the one that a snapshot is of: it does not change hands as plain bytes do. */
bool volume_encrypted(const struct object *o);

/* backup.c: the driver, or -ENOTSUP. */
int backup_service(struct control *c, struct backup_service **ret, struct err **e);
/* A backup of the volume whose snapshot another job takes, and which then is to start its own. */
int backup_of(struct txn *t, struct object *volume, const char *name, uint64_t job, struct err **e);
int backup_remove(struct txn *t, struct object *o, struct err **e);
/* Removes from blockd the snapshots that backups of the volume keep for the next one; older: only
 * those that are older than the job's backup, of its target.  -EBUSY: one is being read. */
int backup_drop_snapshots(struct job *j, uint64_t volume, bool older, struct err **e);
/* Progress for a driver, of a job. */
struct backup_progress backup_progress(struct job *j);
/* keep.c: "daily:7,weekly:4" */
int keep_check(const char *rules, struct err **e);
/* Which of n times (usec, newest first) the rules keep.  Rules that keep nothing keep all. */
void keep_mark(const char *rules, const int64_t *taken, size_t n, bool *keep);
/* Starts the removal of the backups of the volume that its rules do not keep. */
int backup_expire(struct txn *t, struct object *volume, struct err **e);

/* owner.c: whether the volume's bytes are on one host's disks. */
bool volume_local(const struct object *v);
/* Whether new volumes are where every host reaches them. */
bool pool_shared(struct control *c);

/* tenant-key.c: a verb, and what a tenant's end does if it was given one. */
int tenant_ceph_key(struct txn *t, struct object *o, const char *args, struct err **e);
int tenant_revoke_key(struct job *j, const char *tenant, struct err **e);

/* pool.c.  Labels of pools are "local" or "rbd:POOL[/NAMESPACE]".  Model held, but by
 * pool_default() and volume_place_new(). */
enum { POOL_SIZE = 256 };
void pool_default(const struct control *c, char ret[POOL_SIZE]);
/* The first that is in Ceph; false: there is none. */
bool pool_ceph(const struct control *c, char ret[POOL_SIZE]);
/* -EINVAL with the list of those there are. */
int pool_check(const struct control *c, const char *label, struct err **e);
bool pool_same(const struct control *c, const char *a, const char *b);
/* Where a volume's, snapshot's or image's bytes are. */
void pool_of(const struct control *c, const struct object *o, char ret[POOL_SIZE]);
/* Of rbd:POOL/[NAMESPACE/]IMAGE: the pool, and what it is called there (in text). */
int pool_of_image(const struct control *c, const char *text, char ret[POOL_SIZE],
                  const char **ret_name, struct err **e);
void volume_settle_in(struct txn *t, struct object *o, const char *label);
/* A draft is to be made where its type says. */
void volume_follow_type(struct txn *t, struct object *o);
bool volume_fits_type(const struct control *c, const struct object *o, const struct object *type);
/* Before the volume service is asked to make what the job's target, a volume, is to be: where. */
int volume_place_new(struct job *j, const char *id, struct err **e);
int volume_retype(struct txn *t, struct object *o, const char *args, struct err **e);

/* place.c: the first step of a start. */
int instance_step_place(struct job *j, struct err **e);
/* For one that is to leave its host: the best of the others, or that one if it is named (not "");
 * live: as it runs.  Its name goes to `ret` (NAME_SIZE), what was said of each into the job's
 * `why`. -ENOSPC. */
int instance_place_elsewhere(struct txn *t, const struct object *o, struct object *job,
                             const char *named, bool live, char *ret, struct err **e);
/* Whether this host has room for it, of what it has promised itself.  -ENOSPC.  Model held. */
int instance_fits_here(struct control *c, const struct object *o, struct err **e);
/* The same of any host, as the scheduler sees them; -ENOSPC with its words.  Model held. */
int instance_fits_somewhere(struct control *c, const struct object *o, struct err **e);
/* Whether the host that it runs on has room for so much more of it; -ENOSPC with words.  Model
 * held. */
int instance_may_grow(struct control *c, const struct object *o, uint64_t vcpus, uint64_t memory,
                      struct err **e);

/* migrate.c: the verb; and for the host's own drain. */
int instance_migrate(struct txn *t, struct object *o, const char *args, struct err **e);
/* Of one that was to migrate while it was off: it does not. */
void instance_stays_off(struct txn *t, struct object *o);
/* move.c: whether a local volume can be copied to another host with the guest that has it. */
bool volume_goes_along(struct control *c, const struct object *v);
/* limit.c: the volume's limits, on this host, which may not have served it before. */
int volume_limits_here(struct control *c, const char *id, struct err **e);
/* drain.c: while this host drains, its guests are asked to go; again: also those that could not.
 * Whether it drains. */
bool drain_look(struct control *c, bool again);
/* takeover.c: its guest died with that host: it is started elsewhere, if it wants that, or says so.
 */
void instance_died(struct txn *t, struct object *o, const char *host);

/* instance.c */
int instance_compute(struct job *j, struct compute **ret, struct err **e);
/* Closes every export of the target's disks.  Repeatable. */
int instance_unexport(struct job *j, struct err **e);
/* Powers the guest off; args: "now", or the second since 1970 at which it is forced, and more. */
int instance_step_off(struct job *j, struct err **e);
/* Such args: in so many seconds (0: now), and the rest. */
void instance_off_args(char out[48], unsigned seconds, const char *rest);
/* Writes domain.xml anew: the guest was started or its devices have changed. */
void instance_describe(struct job *j, struct compute *compute);
/* Deleted, for good or to be kept: what ends meanwhile says nothing of its state. */
bool instance_leaves(const struct object *o);
/* What one is whose guest runs: active, rescued or resized. */
unsigned instance_up(const struct object *o);
/* The driver's settle(), for job_def.after. */
void instance_settle(struct job *j, const char *target);
int instance_step_unexport(struct job *j, struct err **e);
/* The target, and its guest as it is now: one that is not there is GUEST_GONE. */
int instance_look(struct job *j, struct compute **compute, struct facts *f, enum guest_state *ret,
                  struct err **e);
/* The engine is down, and what was asked for stands: it is done when the engine is back. */
int instance_wait_engine(struct job *j, struct err **e);
/* failed() of what leaves the guest as it was, whatever that is: active, until a sync has looked.
 */
void instance_failed_running(struct job *j, struct txn *t, struct object *o, const struct err *err);
/* adopt-guest.c: the verb of a tenant. */
int tenant_adopt(struct txn *t, struct object *o, const char *args, struct err **e);
/* -ENOTSUP, for what takes disks and definitions of our own. */
int instance_not_adopted(const struct object *o, const char *what, struct err **e);
/* kinds/instance-container.c: whether it runs as a container, by its flavor.  Model held, here and
 * below. */
bool instance_container(const struct object *o);
/* -EINVAL: what runs it, or ran it last, is not what that flavor wants. */
int instance_same_engine(const struct object *o, const struct object *f, struct err **e);
/* -ENOTSUP, for what a container has not. */
int instance_not_container(const struct object *o, const char *what, struct err **e);
/* -EINVAL: it cannot be one, or be started, as it is; the image is no root of it, or only of one.
 */
int container_flavor_fits(const struct object *flavor, struct err **e);
int container_image_fits(const struct object *o, const struct object *image, struct err **e);
int container_start_fits(const struct object *o, struct err **e);
/* jobs/container.c: the tree of a container in that instance's folder; missing is success. */
int container_remove(const char *dir, struct err **e);
/* What runs guests of this host: the engine of virtual machines, and that of containers if it has
 * such.  Those that could be opened; the error is of the first that could not. */
enum { ENGINES = 2 };
int compute_engines(struct control *c, struct compute *v[ENGINES], size_t *ret_n, struct err **e);
/* Files of an instance on the host; the caller frees. */
char *instance_dir(struct control *c, const struct object *o);
char *instance_console_log(struct control *c, const struct object *o);
/* What it said since its start on hosts that it has left: stands before that. */
char *instance_console_head(struct control *c, const struct object *o);
/* console.c: the log of the boot before (1), the one before that ... */
enum { CONSOLES_PAST = 3 };
char *instance_console_past(struct control *c, const struct object *o, unsigned boot);
/* Of one that has come from another host: what came with it stands before what it says here;
 * `whole`: it is all that it said there, in that folder, in place of what came before. */
int console_arrived(const char *dir, const char *whole, struct err **e);
/* What is in the console.log of that instance's folder becomes past/1; nobody writes to it. */
void console_new_boot(const char *dir);
/* The same for logs of running guests that have become too large. */
void consoles_trim(struct control *c);
char *instance_domain(struct control *c, const struct object *o);
char *instance_vnc(struct control *c, const struct object *o);
char *instance_memory(struct control *c, const struct object *o); /* while it is suspended */
char *instance_console(struct control *c, const struct object *o);
char *instance_nvram(struct control *c, const struct object *o); /* its UEFI's variables */
/* Socket of its TPM, in a folder with the TPM's state. */
char *instance_tpm(struct control *c, const struct object *o);
/* kinds/instance-hardware.c: the figures of a flavor become the instance's; are kept beside, for a
 * resize on probation; are forgotten, or taken back. */
void instance_take_flavor(struct txn *t, struct object *o, const struct object *flavor);
void instance_keep_flavor(struct txn *t, struct object *o);
void instance_forget_flavor(struct txn *t, struct object *o);
void instance_restore_flavor(struct txn *t, struct object *o);
/* -EINVAL: what the flavor says does not go together. */
int instance_flavor_fits(const struct object *flavor, struct err **e);
/* A word of what its flavor asks of the board; false: as usual.  Model held. */
bool instance_hardware(const struct object *o, const char *key, char *out, size_t size);
/* What the instance says, or, where that is auto, its image; "": neither.  Model held. */
const char *instance_or_image(const struct object *o, const char *attr);
/* Puts a volume back to rest when instance o lets go of it: before the link is removed. */
void instance_release_volume(struct txn *t, struct object *o, struct object *volume);
/* The state of a volume that instances have, by what still goes on; `done` is the link id of the
 * attachment whose job ends now, "" for none. */
unsigned volume_held_state(struct control *c, const struct object *volume, const char *done);

/* root.c */
/* A volume from the image, at least size bytes (0: as the image), that goes with the instance,
 * linked as `device`; it is made by a job of its own. */
int instance_make_root(struct txn *t, struct object *o, struct object *image, const char *suffix,
                       const char *device, uint64_t size, struct object **ret, struct err **e);
/* What it boots from: its rescue disk, its first bootable one, or its first; NULL: it has none. */
struct link *instance_boot_link(const struct object *o);
/* Takes the volume from an instance whose guest is off; one that was made for it goes, unless it
 * has snapshots. */
void instance_drop_volume(struct txn *t, struct object *o, struct link *l);
/* The image that the arguments of a verb name, if it can be booted. */
int instance_image_named(struct txn *t, struct object *o, const char *verb, const char *args,
                         struct object **ret, struct err **e);
/* rescue.c: its guest is off: it is started, by a job of its own. */
void instance_start_again(struct txn *t, struct object *o);
/* rescue.c, shelve.c, resize.c: the verbs. */
int instance_resize(struct txn *t, struct object *o, const char *args, struct err **e);
int instance_confirm(struct txn *t, struct object *o, const char *args, struct err **e);
int instance_revert(struct txn *t, struct object *o, const char *args, struct err **e);
int instance_rescue(struct txn *t, struct object *o, const char *args, struct err **e);
int instance_unrescue(struct txn *t, struct object *o, const char *args, struct err **e);
int instance_rebuild(struct txn *t, struct object *o, const char *args, struct err **e);
int instance_shelve(struct txn *t, struct object *o, const char *args, struct err **e);
int instance_unshelve(struct txn *t, struct object *o, const char *args, struct err **e);
/* shelve.c: a step: its memory and copies of what it boots from go. */
int instance_step_clear(struct job *j, struct err **e);
/* reclaim.c: the verbs; remove: its deletion, for good. */
int instance_delete(struct txn *t, struct object *o, const char *args, struct err **e);
int instance_restore(struct txn *t, struct object *o, const char *args, struct err **e);
void instance_begin_delete(struct txn *t, struct object *o);
/* Deletes those of this host whose time is over; CLOCK_MONOTONIC, when to look again; INT64_MAX. */
int64_t instances_reclaim(struct control *c);
