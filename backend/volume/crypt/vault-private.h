/* Between vault.c and members.c. */
#pragma once

#include <uthash.h>
#include "backend/volume/crypt/vault.h"

struct family {
        UT_hash_handle hh; /* by id */
        char id[VOLUME_ID_SIZE];
        unsigned members;
        bool told;       /* of vault_locked(), with lock */
        struct xts *xts; /* its key; set once, with keys and lock; NULL: not given yet */
};

struct member {
        UT_hash_handle hh; /* by id */
        char id[VOLUME_ID_SIZE];
        struct family *family;
        char mark; /* 'm', 'c' or 'r', as on disk */
        unsigned users;
        struct vault_volume *volume; /* while users > 0 */
};

struct vault {
        char *dir; /* <state>/crypt */
        const struct volume_driver *driver;
        void *pool;
        pthread_mutex_t change; /* over a whole change of members and families */
        pthread_mutex_t keys;   /* over work with headers and the keyring */
        pthread_mutex_t lock;   /* the tables; they change with both, this and change */
        struct member *members;
        struct family *families;
        struct bounces bounces;
        bool warned; /* that there is no keyring */
};

/* members.c: with change: a member that another host has made. */
int vault_mark(struct vault *v, struct family *f, const char *id, struct err **e);

/* share.c, with vault_look(), which is called without locks.  All are success where the driver keeps
 * no families.
 * With change: the family's header as the others know it becomes ours; how many members it has. */
int share_fetch(struct vault *v, struct family *f, unsigned *ret_members, struct err **e);
/* With change: ours becomes that of all. */
int share_header(struct vault *v, struct family *f, struct err **e);
int share_join(struct vault *v, const struct family *f, const char *id, struct err **e);
int share_leave(struct vault *v, const struct family *f, const char *id, struct err **e);
/* At start: what was made before families were shared. */
void share_all(struct vault *v);

/* vault.c: with lock or change, as long as nothing is changed. */
struct member *vault_find(struct vault *v, const char *id);
struct family *vault_family(struct vault *v, const char *id);
/* With change.  NULL: no memory. */
struct family *vault_add_family(struct vault *v, const char *id);
void vault_drop_family(struct vault *v, struct family *f);
struct member *vault_add_member(struct vault *v, struct family *f, const char *id, char mark);
void vault_drop_member(struct vault *v, struct member *m);
char *vault_header(const struct vault *v, const struct family *f);
/* -EKEYREJECTED.  The key is kept, in memory and in the keyring. */
int vault_unlock(struct vault *v, struct family *f, const char *passphrase, struct err **e);
/* Takes its key out of the keyring. */
void vault_forget(struct vault *v, struct family *f);
