/* What the mount (and later the HTTP API) may ask of the cloud.
 *
 * Every change is validated, authorised, committed to the store and only then answered: these
 * calls block for one fsync, may be made from any thread, and return 0 or -errno with words.
 * Long work is a job that goes on after the return.  Rendering calls need the read lock
 * (control_rdlock) and touch memory only. */
#pragma once

#include <sys/types.h>
#include "control/kind.h"
#include "control/model.h"

struct store;
struct volume_service;
struct image_service;
struct backup_service;
struct compute;
struct host_fence;
struct network_service;

/* Who asks.  pid 0: unknown (another pid namespace). */
struct caller {
        uid_t uid;
        gid_t gid;
        pid_t pid;
};

/* Whether the group is one of the caller's, as the kernel has it; without a pid as the user database
 * has it.  Any thread, best without a lock. */
bool caller_in_group(const struct caller *who, gid_t gid);

/* Drivers and places; all borrowed and outliving the control. */
struct control_config {
        struct store *store;
        struct volume_service *volumes;
        struct image_service *images;
        struct backup_service *backups; /* NULL: backups are refused */
        /* Opens compute on first use (control calls it on a worker); returns a cached one later. */
        int (*compute)(void *arg, struct compute **ret, struct err **e);
        /* The same for containers; NULL: none run on this host. */
        int (*containers)(void *arg, struct compute **ret, struct err **e);
        /* Whether `extra.xml` may be merged into a guest's description: -EINVAL with words; NULL:
         * anything.  Memory only. */
        int (*check_extra)(const char *text, struct err **e);
        /* The same as `compute` for networks; NULL: this cloud has none, and says so. */
        int (*network)(void *arg, struct network_service **ret, struct err **e);
        void *arg;
        /* How a host that died is kept from writing to volumes; from the store, which hosts of one cloud
         * share, it is kept by the store.  NULL: its volumes are its own. */
        struct host_fence *fence;
        const char *cloud_key; /* file of the key that wraps the tenants' keys in a store of several
                                * hosts; NULL: this host has none */
        unsigned lease_ms;   /* without a sign of life for so long, a host is taken over; 0: 10 s */
        const char *mount;   /* absolute path of the mount point, for link targets that name it */
        const char *state;   /* state folder */
        const char *run;     /* run folder */
        const char *host;    /* this host's name */
        unsigned simulated;  /* so many hosts more, sim-1 ..., which are this process, too: for a
                              * compute that simulates, on one machine */
        const char *pool;    /* where volumes' bytes are: "local", NULL too, or what all hosts reach */
        uid_t uid;           /* of the daemon: 0, or the plain user who runs it all */
        gid_t gid;
        uint64_t numbers;    /* objects get numbers above this one */
        const uint64_t *uploads; /* images whose bytes go on coming in, as before this start */
        size_t nuploads;
};

/* Loads the store, makes what a new cloud needs (default tenant, flavors, this host), settles
 * interrupted jobs, starts the workers.  Before any other call.  *ret is set before cfg's compute
 * is called for the first time, which may be before the return. */
int control_start(const struct control_config *cfg, struct control **ret, struct err **e);
/* Stops the workers: running steps finish, jobs stay for the next start.  After it no driver is
 * called any more; events may still come. */
void control_quiesce(struct control *c);
/* Quiesces if need be, and frees.  No other call may be running. */
void control_stop(struct control *c);

/* How this host runs guests, as its record has it: compute "" and accel "unknown" if nobody looked
 * yet.  Set by whoever probed; NULL leaves a value. */
void control_host(struct control *c, char compute[16], char accel[16]);
int control_host_set(struct control *c, const char *compute, const char *accel, struct err **e);
/* The cloud's own id, ID_TEXT_SIZE bytes: marks what is ours where others have things, too. */
char *control_id(struct control *c, char *out);
/* What the compute driver's events end in; any thread, does not block on I/O. */
void control_guest_changed(struct control *c, const char *uuid);
void control_guests_resync(struct control *c);
/* A guest let go of a device, by target or MAC, that had been given back to it: its link goes. */
void control_guest_left(struct control *c, const char *uuid, const char *device);

/* --- changes ------------------------------------------------------------------------------ */

/* mkdir.  owner: the tenant's no, or OBJECT_CLOUD. -EEXIST taken, -EDQUOT, -EPERM. */
int control_create(struct control *c, const struct caller *who, uint64_t owner,
                   const struct kind *k, const char *name, uint64_t *ret_no, struct err **e);
/* A write to `new`: "name=v size=1G ..." or a JSON object with "name".  token= repeats the first
 * answer.  Gives "name id\n" (caller frees). */
int control_new(struct control *c, const struct caller *who, uint64_t owner, const struct kind *k,
                const char *text, size_t n, char **ret_line, struct err **e);
/* rmdir: the name is free at once, the job ends the rest.  -EBUSY lists the referrers. */
int control_delete(struct control *c, const struct caller *who, uint64_t no, struct err **e);
int control_rename(struct control *c, const struct caller *who, uint64_t no, const char *name,
                   struct err **e);
/* One write(2) to an attribute; text without its trailing newline. */
int control_set(struct control *c, const struct caller *who, uint64_t no, unsigned attr,
                const char *text, size_t n, struct err **e);
/* A FILE_LINES file: one line. */
int control_write_line(struct control *c, const struct caller *who, uint64_t no, unsigned file,
                       const char *text, size_t n, struct err **e);
/* One line of `ctl`. */
int control_verb(struct control *c, const struct caller *who, uint64_t no, const char *text,
                 size_t n, struct err **e);
/* A whole `spec`, all or nothing.  ret_said (optional) gets what it changed, a line a key, "KEY: OLD
 * -> NEW"; NULL or "" when all was so already; the caller frees it. */
int control_apply(struct control *c, const struct caller *who, uint64_t no, const char *json,
                  size_t n, char **ret_said, struct err **e);
/* symlink(target, <object>/<def>[/name]).  Gives the canonical name (NAME_SIZE bytes). */
int control_link(struct control *c, const struct caller *who, uint64_t no, unsigned def,
                 const char *name, const char *target, char *ret_name, struct err **e);
int control_unlink(struct control *c, const struct caller *who, uint64_t no, unsigned def,
                   const char *name, struct err **e);
int control_set_meta(struct control *c, const struct caller *who, uint64_t no, const char *key,
                     const char *value, size_t n, struct err **e);
/* Bytes that the metadata value of that key has at most. */
size_t meta_value_max(const struct kind *k, const char *key);
int control_del_meta(struct control *c, const struct caller *who, uint64_t no, const char *key,
                     struct err **e);

/* Replaces one link of that name, if there is one, by another. */
int control_relink(struct control *c, const struct caller *who, uint64_t no, unsigned def,
                   const char *name, const char *target, struct err **e);

/* --- changes that a later life may be asked for again -----------------------------------------
 *
 * The next change that this thread makes is recorded under this name (up to 34 bytes), in the same
 * transaction; NULL: under none.  The string stays the caller's and lives until the next call. */
void control_name_changes(struct control *c, const char *name);
/* Whether a change of that name is durable.  Waits for the store. */
bool control_named_done(struct control *c, const char *name);
/* The answer to a `new` that is: "name id\n" (caller frees).  -ENOENT: it was deleted since. */
int control_made(struct control *c, uint64_t owner, const struct kind *k, const char *text,
                 size_t n, char **ret_line, struct err **e);

/* --- bulk data ---------------------------------------------------------------------------- */

enum data_type { DATA_NBD, DATA_IMAGE };
/* An open `data` or `disk`, or an upload. */
struct data {
        enum data_type type;
        uint64_t no;          /* the object */
        bool writable;
        char *socket, *export; /* DATA_NBD: connect here */
        uint64_t size;         /* DATA_NBD: bytes; DATA_IMAGE: at open */
        struct image_blob *blob;
        struct image_service *images;
        bool upload;           /* its close publishes */
        bool in_order;         /* every write so far began where the last one ended */
        uint64_t next, received;
        int failed;           /* the first error of a write: such an upload is not whole */
};
/* Opens file (index in kind->files, FILE_DATA) of object no.  Takes no FUSE worker's time beyond
 * memory and a local open(2).  -EBUSY in use, -EACCES. O_ACCMODE of flags counts. */
int control_open_data(struct control *c, const struct caller *who, uint64_t no, unsigned file,
                      int flags, struct data **ret, struct err **e);
/* cp FILE images/: a new image named after the file, open for its upload. */
int control_upload(struct control *c, const struct caller *who, uint64_t tenant,
                   const char *filename, uint64_t *ret_no, struct data **ret, struct err **e);
/* Deletes the image that control_upload() made of this file. */
void control_upload_forget(struct control *c, const struct caller *who, uint64_t tenant,
                           const char *filename);
/* An upload of cfg.uploads goes on where it was; or does not, and its image ends in `error`. */
int control_upload_again(struct control *c, uint64_t no, uint64_t received, uint64_t next,
                         bool in_order, struct data **ret, struct err **e);
void control_upload_lost(struct control *c, uint64_t no, uint64_t received);
/* I/O of DATA_IMAGE; counts progress and order.  pread gives the count. */
int64_t data_pread(struct data *d, void *p, size_t n, uint64_t off);
int data_pwrite(struct control *c, struct data *d, const void *p, size_t n, uint64_t off,
                struct err **e);
int data_truncate(struct control *c, struct data *d, uint64_t size);
int64_t data_seek(struct data *d, uint64_t off, int whence);
int64_t data_size(struct data *d);
/* Last close.  An upload that ended well goes on to the checks (a job); cut != NULL says why it
 * is not whole ("its writer was killed by signal"): the image ends in `error` with these words. */
void control_close_data(struct control *c, struct data *d, const char *cut);

/* Makes volume no, which its one writer has not written yet, a clone of the image or volume `from`,
 * by a job: it is `available` again at the end, and then control_adopted() tells whether it is one.
 * -ENOTSUP: it cannot be. */
int control_adopt(struct control *c, uint64_t no, uint64_t from, struct err **e);
bool control_adopted(struct control *c, uint64_t no, uint64_t from);
/* --- space -------------------------------------------------------------------------------- */

/* Of the tenant that o belongs to or is: how many bytes its volumes may have together (VALUE_MAX: no
 * limit), and what they take on disk, as of the last second somebody looked.  -ENOENT: of none.
 * Model held; from memory. */
int control_space(struct control *c, const struct object *o, uint64_t *ret_limit,
                  uint64_t *ret_used);

/* --- waiting ------------------------------------------------------------------------------ */

struct waiter;
/* Parks until object no is in the state called `state` ("gone" when it has ended, "change" for
 * any transition).  done(arg, r) is called exactly once unless cancelled, on any thread, possibly
 * before this returns: r is 0 reached, -EIO another terminal state, -ETIMEDOUT, -ENOENT gone.
 * Returns -ENOENT for a state this kind has not, -EBUSY when the uid has too many waits. */
int control_wait(struct control *c, const struct caller *who, uint64_t no, const char *state,
                 int64_t timeout_us, void (*done)(void *arg, int r), void *arg,
                 struct waiter **ret, struct err **e);
/* The same, until there is an event behind the cursor that may be of the object (render_events_from()
 * tells), or of what a tenant holds.  No time-out. */
int control_wait_event(struct control *c, const struct caller *who, uint64_t no, uint64_t cursor,
                       void (*done)(void *arg, int r), void *arg, struct waiter **ret,
                       struct err **e);
/* true: cancelled, done will not be called.  false: done has been or is being called. */
bool control_wait_cancel(struct control *c, struct waiter *w);
/* What became of one object. */
struct change {
        uint64_t no;
        uint64_t owner;          /* whose collection lists it */
        const struct kind *kind;
        bool gone;               /* it no longer goes by a name it had */
        bool deleted;            /* nor is it there */
        uint64_t told;           /* TOLD_... that are void now */
        int64_t at;              /* usec: the time of its record; changes come in its order.  0: it
                                  * is another host's */
        bool list_told;          /* the collection's directory changed, and was told of */
        bool undone;             /* the store refused: what was seen for a moment never was */
};
/* Calls changed(arg, change) for each object of each durable change, before anybody is told that it
 * is: for cache invalidation and poll(2).  On any thread, in the order of the changes; must not wait
 * for anything that waits for a commit.  NULL takes it back: no call is under way after the return. */
void control_on_change(struct control *c, void (*changed)(void *arg, const struct change *ch),
                       void *arg);
/* Whether other hosts change the model, too. */
bool control_shared(const struct control *c);

/* --- failures and events ------------------------------------------------------------------ */

/* Writes a failed call into the object's `error`, the tenant's `errors` and the caller's.
 * op: "write", path: relative to the mount.  no or tenant may be 0. */
void control_record(struct control *c, const struct caller *who, const char *op, const char *path,
                    uint64_t no, uint64_t tenant, int code, const struct err *err);
void control_clear_errors(struct control *c, uint64_t tenant_or_0, uid_t uid);

/* --- rendering (read lock held, memory only; text ends in a newline) ----------------------- */

void render_attr(struct control *c, const struct object *o, unsigned attr, struct buf *out);
void render_ctl(struct control *c, const struct object *o, struct buf *out);
void render_spec(struct control *c, const struct object *o, struct buf *out);
void render_json(struct control *c, const struct object *o, struct buf *out); /* everything */
void render_index(struct control *c, const struct collection *l, struct buf *out);
void render_error(struct control *c, const struct object *o, struct buf *out);
void render_events(struct control *c, const struct object *tenant_or_object, struct buf *out);
/* Those from *cursor on, behind "lost N" if N records of the tenant's log are gone unread; moves the
 * cursor behind them.  UINT64_MAX: none, but from now on. */
void render_events_from(struct control *c, const struct object *tenant_or_object, uint64_t *cursor,
                        struct buf *out);
void render_errors(struct control *c, const struct object *tenant, struct buf *out);
void render_user_error(struct control *c, uid_t uid, bool all, struct buf *out);
void render_default_tenant(struct control *c, uid_t uid, struct buf *out);
void render_help(struct control *c, struct buf *out);    /* $C/help */
void render_version(struct control *c, struct buf *out); /* $C/version */
/* readlink of a link, relative to the directory that holds it. */
void render_link(struct control *c, const struct object *o, const struct link *l, struct buf *out);
/* Path of an object from the mount point: "tenants/default/volumes/root". */
void render_path(struct control *c, const struct object *o, struct buf *out);

/* Modes: the group that may see an object, and whether this caller is an admin. */
gid_t object_gid(struct control *c, const struct object *o);
uid_t control_uid(struct control *c);
bool caller_is_admin(struct control *c, const struct caller *who);
