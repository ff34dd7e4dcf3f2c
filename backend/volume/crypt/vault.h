/* The vault of a pool: which volumes are encrypted, in which family, with what key.
 *
 * A family is an encrypted volume and all that grew from it by cloning and snapshots: their
 * sectors are shared, and so is their key, which is random and wrapped in the family's LUKS2
 * header.  The family's name is its first volume's id.  On disk, beside any driver's pool:
 *
 *   <state>/crypt/<family>/header      the header
 *   <state>/crypt/<family>/m.<volume>  an empty file: a member
 *                          c.<volume>  being made; not acknowledged, it may not be there
 *                          r.<volume>  being removed
 *
 * A mark is durable before the driver makes the volume, so that none is ever taken for a plain one,
 * and goes after the driver has removed it.  A volume that the driver cannot find is no reason to
 * give up an m mark: a family is erased when its last member was removed, and for nothing else.
 *
 * Where the pool is of several hosts, all of that is in the pool, too (share.c).
 *
 * Threads: any.  Lock order: change, keys, lock. */
#pragma once

#include <pthread.h>
#include "backend/volume/crypt/bounce.h"
#include "backend/volume/crypt/xts.h"
#include "backend/volume/volume.h"

enum { VAULT_STRIPES = 64 }; /* bits of a mask */

struct vault;
struct member;

int vault_open(const struct volume_pool_config *c, const struct volume_driver *d, void *pool,
               struct vault **ret, struct err **e);
/* NULL is left alone.  Returns NULL. */
struct vault *vault_close(struct vault *v);

/* Learns of the volume if another host has made it, encrypted.  Success, too, where no others are. */
int vault_look(struct vault *v, const char *id, struct err **e);
/* Whether the volume is encrypted; also one of which that cannot be told just now: what is done with
 * that says why. */
bool vault_has(struct vault *v, const char *id);
/* family and locked of an info that the driver filled. */
void vault_facts(struct vault *v, struct volume_info *info);
/* See volume_locked(). */
void vault_locked(struct vault *v, void (*each)(void *arg, const char *family, const char *id),
                  void *arg);

/* See volume_create_encrypted(), volume_clone(), volume_snapshot(), volume_remove(),
 * volume_key(), volume_rekey(): arguments are checked, the parent (not of create) or the volume is encrypted. */
int vault_create(struct vault *v, const char *id, uint64_t size, const char *passphrase,
                 struct err **e);
int vault_clone(struct vault *v, const char *id, const char *parent, uint64_t size, struct err **e);
int vault_snapshot(struct vault *v, const char *id, const char *of, struct err **e);
int vault_remove(struct vault *v, const char *id, struct err **e);
int vault_key(struct vault *v, const char *id, const char *passphrase, struct err **e);
int vault_rekey(struct vault *v, const char *id, const char *passphrase, const char *next,
                struct err **e);

/* ---- for the layer ---- */

/* What all handles to a volume share. */
struct vault_volume {
        struct xts *xts;
        /* Of the stretches of VAULT_STRIPE bytes: shared by who writes whole sectors, exclusive for
         * who reads a sector to write it. */
        pthread_rwlock_t stripes[VAULT_STRIPES];
};
/* -ENOENT, -ENOKEY. */
int vault_take(struct vault *v, const char *id, struct member **ret, struct vault_volume **ret_vv,
               struct err **e);
void vault_return(struct vault *v, struct member *m);
struct bounces *vault_bounces(struct vault *v);

/* layer.c: a handle to what the driver has opened; on failure the caller closes that. */
int vault_wrap(struct vault *v, const struct volume_driver *d, void *inner, const char *id,
               void **ret, struct err **e);
/* Its functions for a handle; it has none for a pool. */
extern const struct volume_driver volume_layer_crypt;
