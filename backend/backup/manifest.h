/* A manifest: what a backup is, and the chunks that it consists of. */
#pragma once

#include "backend/backup/store.h"
#include "control/driver/backup.h"

struct manifest {
        char id[37], parent[37];
        char *name, *tenant, *volume, *volume_name;
        char created[40];
        uint64_t size, chunk_size;
        uint64_t read_bytes, new_bytes;
        struct hash *chunks; /* nchunks; all zeros: a hole */
        size_t nchunks;
};

/* Sets size, chunk_size and as many holes.  -ENOMEM, -EFBIG. */
int manifest_shape(struct manifest *m, uint64_t size, struct err **e);
/* Bytes of chunk i: chunk_size, but for the last. */
size_t manifest_chunk_len(const struct manifest *m, size_t i);
/* Durable on return, and only then there; the last thing that a backup writes. */
int manifest_write(struct store *s, const struct manifest *m, struct err **e);
/* -ENOENT; -EBADMSG: it is not as it was written; -ENOTSUP: by a later release. */
int manifest_read(struct store *s, const char *id, struct manifest *ret, struct err **e);
/* Missing is success; durable on return. */
int manifest_remove(struct store *s, const char *id, struct err **e);
/* Makes durable what a process that died before that wrote or removed. */
int manifest_sync(struct store *s, struct err **e);
void manifest_done(struct manifest *m);
#define _cleanup_manifest_ _cleanup_(manifest_done)
