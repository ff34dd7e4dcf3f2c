/* Bounded reads of bytes that nobody vouches for.
 *
 * Purpose: the parsers of image headers read through this and nothing else, so that a file, and a
 * buffer in a fuzzer, look the same and no read leaves the image. */
#pragma once

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include "common/err.h"

struct image_input {
        /* Reads n bytes that lie inside the image.  0 or -errno. */
        int (*read)(void *arg, void *p, size_t n, uint64_t off);
        void *arg;
        uint64_t size;        /* bytes */
        uint64_t max_virtual; /* the largest disk that is wanted, bytes; 0: any */
};

/* -EINVAL when the virtual size is 0 or over in->max_virtual.  Parsers ask before they walk tables:
 * an upload may be sparse, so only this bounds how much there is to walk. */
int input_size_check(const struct image_input *in, uint64_t virtual_size, struct err **e);
/* Whether a value but 0 stands twice among n; sorts v.  Two entries that lead to one table make a
 * small file a long walk. */
bool input_has_twice(uint64_t *v, size_t n);

/* Whether n bytes at off lie inside the image. */
bool input_has(const struct image_input *in, uint64_t off, uint64_t n);
/* -EINVAL "image is truncated: WHAT ends at byte ..." unless input_has(). */
int input_want(const struct image_input *in, uint64_t off, uint64_t n, const char *what,
               struct err **e);
/* input_want() and the read.  what names the thing in the words of a refusal. */
int input_read(const struct image_input *in, void *p, size_t n, uint64_t off, const char *what,
               struct err **e);
/* The same into fresh memory (caller frees); more than max bytes are -EINVAL. */
int input_load(const struct image_input *in, uint8_t **ret, uint64_t n, uint64_t max, uint64_t off,
               const char *what, struct err **e);
/* As much as there is; what lies past the end reads as zeros.  0 or -errno. */
int input_peek(const struct image_input *in, void *p, size_t n, uint64_t off, struct err **e);

/* A name found in a file, fit for words: printable ASCII, at most 100 bytes.  Returns out. */
enum { INPUT_TEXT_SIZE = 104 };
char *input_text(char out[INPUT_TEXT_SIZE], const void *p, size_t n);

static inline uint16_t get_le16(const uint8_t *p)
{
        uint16_t v;

        memcpy(&v, p, sizeof(v));
        return le16toh(v);
}
static inline uint32_t get_le32(const uint8_t *p)
{
        uint32_t v;

        memcpy(&v, p, sizeof(v));
        return le32toh(v);
}
static inline uint64_t get_le64(const uint8_t *p)
{
        uint64_t v;

        memcpy(&v, p, sizeof(v));
        return le64toh(v);
}
static inline uint16_t get_be16(const uint8_t *p)
{
        uint16_t v;

        memcpy(&v, p, sizeof(v));
        return be16toh(v);
}
static inline uint32_t get_be32(const uint8_t *p)
{
        uint32_t v;

        memcpy(&v, p, sizeof(v));
        return be32toh(v);
}
static inline uint64_t get_be64(const uint8_t *p)
{
        uint64_t v;

        memcpy(&v, p, sizeof(v));
        return be64toh(v);
}
