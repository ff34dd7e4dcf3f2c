/* Backups: copies of volumes in a folder (a target), readable without us.
 * Driver: backend/backup (doc/backup-store.md).
 *
 * A target holds the backups of many volumes; each distinct piece of bytes is in it once.  Backups
 * are known by the ids of their objects.  Every call blocks, for as long as bytes take, and is made
 * on job workers; any number at once, in any process, except where -EBUSY is said.
 * Errors: -ENOENT no such backup (or no store in that folder: it is not mounted), -EBADMSG bytes
 * are not what they were (the words name the chunk), -ENOSPC, -ECONNREFUSED blockd is down,
 * -ECANCELED and -EINTR what report said. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "common/err.h"

struct backup_progress {
        /* done of total bytes of the volume; a negative return ends the call and is returned. */
        int (*report)(void *arg, uint64_t done, uint64_t total);
        /* The same question, while nothing moves.  May be NULL. */
        int (*poll)(void *arg);
        void *arg;
};

struct backup_request {
        const char *id; /* of the backup, and of the volume's snapshot in blockd */
        const char *name, *tenant, *volume, *volume_name; /* for people, in the manifest */
        const char *parent; /* backup of the same volume in the same target, whose snapshot is
                             * still there; NULL: a full one */
        int64_t taken;      /* usec, wall clock */
        const char *socket; /* where blockd serves any volume by its id, over NBD */
};

struct backup_facts {
        uint64_t size;       /* bytes of the volume */
        uint64_t read_bytes; /* bytes read from the volume */
        uint64_t new_bytes;  /* bytes that the target grew by */
        bool incremental;    /* false, too, when the parent turned out to be of no use */
};

struct backup_service;
struct backup_service_ops {
        const char *name;
        /* target: an absolute path, or "": the default one.  make: a folder that is empty becomes
         * a store; else -ENOENT when it is none. */
        int (*check)(struct backup_service *s, const char *target, bool make, struct err **e);
        /* Success, with the facts of then, when it is whole already. */
        int (*create)(struct backup_service *s, const char *target, const struct backup_request *q,
                      const struct backup_progress *p, struct backup_facts *ret, struct err **e);
        int (*stat)(struct backup_service *s, const char *target, const char *id,
                    struct backup_facts *ret, struct err **e);
        /* Makes volume, at least as large, read as the backup, zeros behind its end, and flushes.
         * blank: the volume has never been written to, or by this call only. */
        int (*restore)(struct backup_service *s, const char *target, const char *id,
                       const char *socket, const char *volume, bool blank,
                       const struct backup_progress *p, struct err **e);
        /* Reads every chunk.  -EBADMSG names the first that is bad and how many are; a bad one is
         * put aside, so that the next backup which has these bytes stores them again. */
        int (*verify)(struct backup_service *s, const char *target, const char *id,
                      const struct backup_progress *p, struct err **e);
        /* The backup is gone when it returns; missing is success.  Its bytes go with sweep. */
        int (*remove)(struct backup_service *s, const char *target, const char *id, struct err **e);
        /* Frees what no backup needs.  -EBUSY while anything else is at work in that target,
         * -EBADMSG when a manifest cannot be read: then nothing is freed. */
        int (*sweep)(struct backup_service *s, const char *target, struct err **e);
        void (*close)(struct backup_service *s);
};
struct backup_service {
        const struct backup_service_ops *ops;
};
