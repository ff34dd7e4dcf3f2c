/* A target on disk: chunks by their checksum, manifests, a lock.  See doc/backup-store.md.
 *
 * Whoever stores or reads holds the lock shared; the sweep holds it alone.  So a chunk that was
 * seen to be there while the lock is held stays until it is let go.  flock(2): a process that dies
 * lets go. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "common/err.h"

enum {
        HASH_SIZE = 32,
        HASH_TEXT = 65,
        CHUNK_MIN = 1 << 20,
        CHUNK_MAX = 16 << 20, /* of the largest volume */
        CHUNKS_MAX = 4 << 20, /* a volume's; larger volumes have larger chunks */
};

/* SHA-256 of a chunk's bytes.  All zeros: a chunk of zeros, which is stored nowhere. */
struct hash {
        uint8_t v[HASH_SIZE];
};

/* A chunk that is written and has no name yet. */
struct pending {
        struct hash hash;
        char temp[64];
        int fd;
};
enum { PENDING_MAX = 32 }; /* synced together, which a journal does in one go */

struct store {
        char *dir;
        int fd;       /* of dir */
        int lock;     /* holds the lock while open */
        char tag[40]; /* begins the names of our temporary files: nobody else's */
        unsigned serial;
        bool touched[256]; /* chunk folders with names that are not yet durable */
        uint64_t new_bytes;
        struct pending pending[PENDING_MAX];
        unsigned npending;
        void *packed; /* compressed form of one chunk */
        size_t packed_size;
};

/* Whether dir holds a store: 0, or -ENOENT.  make: an empty folder, or a missing one whose parent
 * is there, becomes one. */
int store_check(const char *dir, bool make, struct err **e);
/* Takes the lock: alone (-EBUSY at once if anybody has it) or shared (waits for a sweep to end). */
int store_open(const char *dir, bool alone, struct store *ret, struct err **e);
void store_done(struct store *s);
#define _cleanup_store_ _cleanup_(store_done)
#define STORE_NONE                                                                                 \
        {                                                                                          \
                .fd = -1, .lock = -1                                                               \
        }

/* "chunks/ab/abcd...": relative to dir. */
enum { CHUNK_PATH = 11 + HASH_TEXT };
char *store_chunk_path(char out[CHUNK_PATH], const struct hash *h);
/* Whether the chunk is there.  What is there was whole when it got its name. */
bool store_has(struct store *s, const struct hash *h);
/* Stores n bytes under *ret, their checksum, unless they are there.  Zeros are not stored.  Durable
 * after store_sync(). */
int store_put(struct store *s, const void *p, size_t n, struct hash *ret, struct err **e);
/* The n bytes of a chunk, checked.  -EBADMSG: missing, or other bytes. */
int store_get(struct store *s, const struct hash *h, void *p, size_t n, struct err **e);
/* Gives the chunks that wait for it their names, and makes these durable. */
int store_sync(struct store *s, struct err **e);
/* Puts a bad chunk aside; the next store_put() of its bytes heals it. */
void store_spoil(struct store *s, const struct hash *h);
/* A new temporary file, and its name relative to dir.  The caller renames or removes it. */
int store_temp(struct store *s, char out[64], int *ret_fd, struct err **e);

bool hash_zero(const struct hash *h);
char *hash_text(char out[HASH_TEXT], const struct hash *h);
/* false: not 64 lower-case hexadecimal digits and an end. */
bool hash_parse(const char *text, struct hash *ret);
int hash_bytes(const void *p, size_t n, struct hash *ret);
bool all_zeros(const void *p, size_t n);

/* Frees chunks that no manifest names, and leftovers.  s holds the lock alone. */
int store_sweep(struct store *s, struct err **e);
