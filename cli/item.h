/* One object of a tenant: as it is, as a file wants it, and the way from the one to the other. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "common/buf.h"
#include "common/err.h"

struct item {
        char *key;       /* "volumes/v"; its collection is before the slash */
        char *path;      /* its folder */
        json_t *want;    /* as described; NULL: it is not */
        json_t *have;    /* its `spec`; NULL: it is not there */
        json_int_t rev;  /* of `have` */
        char *words;     /* its `error` before it was touched */
        bool touched;    /* changed, or begun to be: item_settle() has to wait */
        bool failed;     /* it, or what it needs */
        json_t *keep;    /* its links to these targets stay, whatever is pruned; may be NULL */
        bool seen, kept; /* marks of who walks; kept: not to be pruned */
};

/* Reads it from the tenant's folder.  What is not there is no error. */
int item_load(struct item *it, const char *tenant, struct err **e);
void item_done(struct item *it);
bool item_is(const struct item *it, const char *collection);

/* Each link of a spec or a description: a "volumes/v" of its own tenant, normalised.  A negative
 * return ends it. */
int links_each(const json_t *doc, int (*each)(void *arg, const char *target), void *arg);

/* What is to be written so that have becomes want: NULL when nothing.  lines gets "KEY: OLD ->
 * NEW", one for each change.  Of maps, what want does not name stays. */
json_t *item_patch(const struct item *it, struct buf *lines);
/* Takes the links out of have that want gives as null, or that prune and want does not name, and
 * gives the patch that does so; NULL when there are none. */
json_t *item_unbind(struct item *it, bool prune, struct buf *lines);
/* Whether `running` asks for a verb of ctl: "start", "stop" or NULL. */
const char *item_power(const struct item *it);
/* Keys that are no files of the tree: an image's `file`, an instance's `running`, and a volume's
 * `snapshots`, names with commas. */
bool item_own_key(const struct item *it, const char *key);
/* The next name of `snapshots` that the volume has no snapshot of, from *at on, which begins as NULL; the
 * caller frees it.  NULL: no more. */
char *item_snapshot_missing(const struct item *it, const char **at);
/* Whether the image waits for its `file`. */
bool item_uploads(const struct item *it);

/* The tenant's quota becomes what want has of it, {"volumes": 10, "memory": "8G", "vcpus": "max"};
 * each change is printed and counted.  dry: no more than that. */
int quota_apply(const char *tenant, const json_t *want, bool dry, unsigned *changes,
                struct err **e);

/* The changes themselves.  Errors are the cloud's own words. */
int item_make(struct item *it, struct err **e);
int item_write(struct item *it, json_t *patch, struct err **e);
int item_upload(struct item *it, struct err **e);
/* mkdir of it, and until it is available. */
int item_snapshot(struct item *it, const char *name, int timeout, struct err **e);
int item_verb(struct item *it, const char *verb, struct err **e);
int item_remove(struct item *it, int timeout, struct err **e);
/* Until no job works on it, at most timeout seconds; -EIO with its words if it failed since it was
 * touched. */
int item_settle(struct item *it, int timeout, struct err **e);
/* Blocks in PATH/.wait/STATE; seconds as many as it may take. */
int wait_for(const char *path, const char *state, int seconds);
/* The words of a call of ours that the cloud just refused with errno code: -errno. */
int cloud_words(const char *mount_file, int code, struct err **e);
