/* Transactions: how the model changes.
 *
 * txn_begin() takes the model's write lock.  Everything changed goes through the calls below,
 * which keep what was there before.  txn_commit() checks quotas, hands the new records to the
 * store, lets the lock go, and waits until the store says durable; if it says no, the change is
 * taken back as if it had never been.  Readers may see a change some microseconds before it is
 * durable; whoever asked for it, waiters and jobs learn of it only after.
 * One transaction touches one scope: one tenant, or the cloud's own objects. */
#pragma once

#include <stdarg.h>
#include "control/control.h"

struct store_txn;

struct touch {
        struct object *o;
        struct object *before; /* a copy without indexes; NULL: created here */
        bool deleted;
        struct change change;  /* from the store's answer on */
};

struct txn {
        struct control *c;
        const struct caller *who; /* NULL: the daemon itself */
        unsigned long turn; /* of the feed, when it began */
        struct touch *v;
        size_t n;
        struct { uint64_t no; char *text; } *events;
        size_t nevents;
        uint64_t quota_room;      /* tenant whose usage was changed by delta at commit; 0: none */
        int64_t delta[24];
        bool unleased;            /* this host's own record: also without the lease */
        /* From here on: between commit and the store's answer. */
        const char *name; /* control_name_changes(); NULL: none */
        int64_t at; /* usec: its records' time; never earlier than that of one before it */
        struct txn *next;
        bool finished;
        int result;
        struct err *err;
};

void txn_begin(struct txn *t, struct control *c, const struct caller *who);
/* Ends the transaction either way.  0 durable; -EDQUOT and such: nothing changed; -EIO, -ENOSPC,
 * -ESTALE (a lost race with another host): taken back. */
int txn_commit(struct txn *t, struct err **e);
/* Takes everything back and lets the lock go. */
void txn_abort(struct txn *t);
/* The id of the transaction that a change of this name is made by (control_name_changes()). */
enum { TXN_NAME_SIZE = 37 };
char *txn_name(char out[TXN_NAME_SIZE], const char *name);
/* The usual end of an action: commit when r == 0, else abort; gives r or the commit's result. */
int txn_end(struct txn *t, int r, struct err **e);

/* A new object with its defaults, in state 0; name NULL makes one of its number.  owner: the tenant
 * or the holder, NULL for global kinds.  -EEXIST. */
int txn_create(struct txn *t, const struct kind *k, struct object *owner, const char *name,
               struct object **ret, struct err **e);
/* Whether o's own creation is not durable yet: nothing of others may be built on it.  Model held. */
bool txn_unborn(struct control *c, const struct object *o);
/* Before anything of o is changed by hand. */
void txn_edit(struct txn *t, struct object *o);
/* For one made in this transaction: the id that it has elsewhere already, and nothing here. */
void txn_set_id(struct txn *t, struct object *o, sd_id128_t id);
void txn_delete(struct txn *t, struct object *o);
/* rmdir's half: the name is free, the object stays under its id. */
void txn_release_name(struct txn *t, struct object *o);
int txn_rename(struct txn *t, struct object *o, const char *name, struct err **e);
void txn_set_state(struct txn *t, struct object *o, unsigned state);
/* Takes over v.s of a text attribute. */
void txn_set_value(struct txn *t, struct object *o, unsigned attr, union value v);
void txn_set_num(struct txn *t, struct object *o, const char *attr, uint64_t v);
void txn_set_str(struct txn *t, struct object *o, const char *attr, const char *s);
void txn_set_error(struct txn *t, struct object *o, const char *record);
struct link *txn_link(struct txn *t, struct object *o, unsigned def, const char *name,
                      struct object *target);
void txn_unlink(struct txn *t, struct object *o, struct link *l);
void txn_set_meta(struct txn *t, struct object *o, const char *key, const char *value, size_t n);
void txn_del_meta(struct txn *t, struct object *o, const char *key);
/* A line for `events`, shown once the change is durable. */
void txn_event(struct txn *t, const struct object *o, const char *fmt, ...) _printf_(3, 4);
