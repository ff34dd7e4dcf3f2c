/* What the files of control/ share.  Not for other rooms. */
#pragma once

#include <stdatomic.h>
#include "common/log.h"
#include "control/alloc.h"
#include "control/control.h"
#include "control/driver/backup.h"
#include "control/driver/compute.h"
#include "control/driver/fence.h"
#include "control/driver/image.h"
#include "control/driver/network.h"
#include "control/driver/store.h"
#include "control/driver/volume.h"
#include "control/txn.h"

enum { KINDS_MAX = 32 };

/* What a tenant uses, counted from its objects and never stored. */
enum quota { Q_INSTANCES, Q_VCPUS, Q_MEMORY, Q_VOLUMES, Q_VOLUME_SIZE, Q_IMAGES, Q_IMAGE_SIZE,
             Q_SNAPSHOTS, Q_BACKUPS, Q_BACKUP_SIZE, Q_NETWORKS, Q_PORTS, Q_ROUTERS, Q_FLOATING_IPS,
             Q_SECURITY_GROUPS, NQUOTAS };
struct usage {
        uint64_t v[NQUOTAS];
};

/* A bounded list of text lines, oldest dropped. */
struct ring {
        char *text;
        size_t len;
        uint64_t lost;  /* records dropped so far */
        uint64_t added; /* records ever: one's place is its number */
};

/* What a tenant (and the cloud, as owner of global kinds) has beside its record. */
struct room {
        struct collection lists[KINDS_MAX];
        struct usage use;
        struct ring events, errors;
        UT_hash_handle hh;
        uint64_t no;
};

struct user {
        uid_t uid;
        struct ring errors;
        char *last;
        char *default_tenant;
        unsigned waits;
        UT_hash_handle hh;
};

struct key_keeper;
struct network_keeper;

struct control {
        struct control_config cfg;
        uint64_t epoch;          /* of this start; jobs carry it */
        atomic_ulong seq;        /* of failures and events */
        pthread_key_t name;      /* of this thread's next change; const char * */

        /* The model.  Lock order: model, then any of the mutexes below; never the other way. */
        pthread_rwlock_t model;
        struct object *by_no, *by_id, *by_name;
        struct room *rooms;
        struct host_sum *host_sums; /* taken.c */
        uint64_t next_no;
        struct txn *pending, **pending_tail; /* handed to the store, not answered; in order */

        /* Failure and event texts. */
        pthread_mutex_t texts;
        struct user *users;

        struct job_engine *jobs;
        struct wait_list *waits;
        struct token_list *tokens;
        struct reconciler *reconciler;
        struct stats_keeper *stats;
        struct metrics_keeper *metrics;
        struct key_keeper *keys;
        struct lease *lease;       /* NULL: this host is the only one */
        struct takeover *takeover;
        struct network_keeper *networks; /* NULL: this cloud has none */
        struct numbers *numbers; /* NULL: next_no alone */
        struct feed *feed; /* NULL: nobody else changes the store */
        void (*changed)(void *arg, const struct change *ch);
        void *changed_arg;
        pthread_mutex_t changed_lock; /* both, so that they can be taken back */
};

/* lease.c: whether this host may serve: change anything, run a job.  Any lock, memory only. */
bool lease_holds(struct control *c);

/* model.c */
void model_init(struct control *c);
void model_done(struct control *c);
void model_add(struct control *c, struct object *o);    /* into the indexes and its collection */
void model_remove(struct control *c, struct object *o); /* out of them; the memory stays */
void model_index_name(struct control *c, struct object *o);
void model_unindex_name(struct control *c, struct object *o);
void collection_touch(struct collection *l); /* its names changed */
struct room *model_room(struct control *c, const struct object *owner);
struct object *object_new(const struct kind *k);
struct object *object_copy(const struct object *o);
/* Gives o the contents of copy (and copy those of o): names, values, links, metadata. */
void object_swap(struct control *c, struct object *o, struct object *copy);
void object_free(struct object *o);
void object_set_name(struct object *o, const char *name); /* not indexed */
void object_add_ref(struct object *target, struct object *from);
void object_drop_ref(struct object *target, struct object *from);
void object_add_refs(struct object *o);
void object_drop_refs(struct object *o);

/* txn.c: what o's change is to those who keep copies; takes the marks.  gone: it has a name no
 * longer that it had; listed: what its collection lists is another.  Model write-held. */
struct change change_of(struct control *c, struct object *o, bool gone, bool listed);

/* record.c: objects as the store keeps them */
char *record_write(const struct object *o);
int record_load(struct control *c, struct err **e);
void record_scope(const struct object *o, char out[40]);
/* A record as it was read: an object in no index yet. */
struct record {
        struct object *o;
        struct json_t *links; /* NULL if it has none */
        uint64_t in;          /* the holder; 0: none */
        bool named;           /* o's name is one of the model's */
        char scope[40];
};
/* Logs why not. */
int record_read(const struct store_record *r, struct record *ret);
void record_done(struct record *r); /* frees o, too, unless it was taken */
/* Once tenant and holder of o are set. */
void record_name(struct record *r);
/* Fills o's links, without counting them at their targets.  false: a target is not there, and that
 * is not to be ignored. */
bool record_links(struct control *c, struct object *o, struct json_t *links, bool ignore);

/* number.c */
int numbers_start(struct control *c, struct err **e); /* the model is loaded */
void numbers_stop(struct control *c);
void numbers_free(struct control *c);
/* The next number of an object, its own in all of the cloud.  Model write-held. */
uint64_t number_next(struct control *c);
/* The number of an object that nobody ever saw, the newest first: so that who makes what is refused
 * uses none up.  Model write-held since number_next(). */
void number_back(struct control *c, uint64_t no);

/* feed.c: a store that other hosts change, too */
struct feed;
void feed_start(struct control *c);                /* the model is loaded */
int feed_watch(struct control *c, struct err **e); /* from the return on others are heard */
void feed_stop(struct control *c); /* no change of others comes any more */
void feed_free(struct control *c);
bool feed_shared(const struct control *c); /* whether it is such a store */
/* Whether the host of that name is this process: it, or one that it simulates. */
bool host_here(const struct control *c, const char *name);
/* Whether o, a job or an instance, is this host's.  Model held. */
bool feed_ours(const struct control *c, const struct object *o);

/* Model write-held; lets it go meanwhile: what others did is about to be applied. */
void feed_begin(struct control *c);
void feed_answered(struct control *c);                    /* a commit was; no lock held */
void feed_deleted(struct control *c, const struct object *o); /* o's deletion is durable; model held */
/* Waits, a little, until something is in the model that was not at that turn. */
void feed_await(struct control *c, unsigned long turn);
unsigned long feed_turn(const struct control *c); /* model held */
/* Whether to decide again: another host was quicker.  Takes *e back then. */
bool feed_again(const struct control *c, int r, unsigned *tries, struct err **e);
#define AGAIN(c, e, call)                                                                          \
        ({                                                                                         \
                unsigned _tries = 0;                                                               \
                int _r;                                                                            \
                                                                                                   \
                do                                                                                 \
                        _r = (call);                                                               \
                while (feed_again(c, _r, &_tries, e));                                             \
                _r;                                                                                \
        })

/* taken.c: sums of what guests take of hosts.  Model write-held. */
void taken_count(struct control *c, struct object *o); /* o has changed, or is new; any kind */
void taken_drop(struct control *c, struct object *o);
bool taken_by(const struct attr_def *a); /* whether a counts in them */

/* quota.c */
const char *quota_name(enum quota q);
void usage_of(const struct object *o, struct usage *ret);
/* At commit: -EDQUOT if a limit would be passed by growing, else counts the change. */
int quota_check(struct txn *t, struct err **e);
void quota_undo(struct txn *t);
/* At load (1), and when another host makes (1) or unmakes (-1) what o is. */
void quota_count(struct control *c, const struct object *o, int sign);
uint64_t quota_limit(const struct object *tenant, enum quota q);

/* errors.c */
struct user *user_get(struct control *c, uid_t uid); /* texts held */
/* The events that o's `events` shows, and those of all that it holds. */
struct ring *events_ring(struct control *c, const struct object *o);
void ring_add(struct ring *r, const char *text, size_t max);
void events_add(struct control *c, const struct object *o, const char *text); /* model held */
/* "start 'web': ..." as a record for `error`; caller frees. */
char *error_record(struct control *c, const struct caller *who, const char *op, const char *path,
                   int code, const struct err *err);
const char *errno_name(int code);

/* wait.c */
void wait_init(struct control *c);
void wait_done(struct control *c);
void wait_changed(struct control *c, uint64_t no);
void wait_gone(struct control *c, uint64_t no);

/* access.c */

/* action.c */
enum { META_KEYS = 128, META_KEY = 255, META_VALUE = 4096, USER_DATA = 64 << 10 }; /* metadata */
bool meta_key_valid(const char *key);
int authorise(struct control *c, const struct caller *who, const struct object *o, enum role need,
              const char *what, struct err **e);
int find_object(struct control *c, uint64_t no, struct object **ret, struct err **e);
int action_set(struct txn *t, struct object *o, unsigned attr, const char *text, size_t n,
               struct err **e);
int action_create(struct txn *t, struct object *owner, const struct kind *k, const char *name,
                  struct object **ret, struct err **e);
int action_complete(struct txn *t, struct object *o, struct err **e);

/* link.c */
int action_link(struct txn *t, struct object *o, unsigned def, const char *name,
                const char *target, bool beside_link, char *ret_name, struct err **e);
int action_unlink(struct txn *t, struct object *o, unsigned def, const char *name, struct err **e);
int resolve_target(struct control *c, const struct object *o, const struct link_def *d,
                   const char *target, bool beside_link, struct object **ret, struct err **e);
/* -EBUSY with the list of who links to o; 0 when only objects that are leaving do. */
int check_referrers(const struct object *o, struct err **e);

/* render.c: "42.10% 4404019200/10485760000"; nothing while no total is known */
void render_done(const struct object *o, struct buf *out);

/* keys.c: the tenants' keys.  A tenant's is 32 random bytes in <state>/keys/<tenant>, made when it
 * is first needed; what opens a family of encrypted volumes is derived from it.  They are in no
 * record, no log and no command line. */
enum { PASSPHRASE_SIZE = 65 };
int keys_start(struct control *c, struct err **e);
void keys_stop(struct control *c);
void keys_free(struct control *c);
/* The passphrase of a family of that tenant's; to be wiped after use.  make: makes the tenant's key
 * if it has none, else that is -ENOKEY.  Blocks. */
int keys_passphrase(struct control *c, const char *tenant, const char *family, bool make,
                    char ret[PASSPHRASE_SIZE], struct err **e);
/* Sees to it that the volume service has the volume's key, if it needs one.  Blocks. */
int keys_unlock(struct control *c, const char *volume, struct err **e);
/* Overwrites and removes the tenant's key: nothing that it wraps can be read again.  Missing is
 * success. */
int keys_erase(struct control *c, const char *tenant, struct err **e);

/* spec.c */
void tokens_free(struct control *c);

/* seed.c */
int seed_cloud(struct control *c, struct err **e);

/* stats.c: what o, a volume, has done; all zeros when nothing is known.  Gives the time of the
 * figures, 0: there are none yet.  From memory, never waits; model held or not. */
int64_t stats_look(struct control *c, const struct object *o, struct volume_stats *ret);
/* Bytes of disk that o, a volume, takes; 0: not known yet.  Like stats_look(). */
uint64_t stats_used(struct control *c, const struct object *o);
int stats_start(struct control *c, struct err **e);
void stats_stop(struct control *c);
void stats_free(struct control *c);

/* reconcile.c */
int reconcile_start(struct control *c, struct err **e);
void reconcile_stop(struct control *c);
void reconcile_free(struct control *c);
void reconcile_groups(struct control *c); /* tenants came or went, of several hosts */
void reconcile_limits(struct control *c); /* a volume type changed, durably */
void reconcile_deleted(struct control *c); /* an instance is kept for a while */
void reconcile_hosts(struct control *c);  /* a host's record did */

/* metrics.c: an object of kind k changed, durably.  Any lock of the model's. */
void metrics_changed(struct control *c, const struct kind *k);

/* network.c: an object of kind k changed, durably. */
void networks_changed(struct control *c, const struct kind *k);
