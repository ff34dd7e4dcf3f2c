/* AES-256-XTS on sectors, as dm-crypt does it for a LUKS2 segment of 4096-byte sectors: the tweak
 * ("plain64") is the number of the sector's first 512 bytes, little-endian.
 *
 * A piece of a sector that is all zeros on disk is a hole: it was never written, trimmed or zeroed,
 * and reads as zeros.  No plaintext that anyone can choose without the key encrypts to it.  Pieces
 * are as large as what a disk writes whole: a power cut in the first write to a hole leaves some of
 * them.  (The cipher's blocks do not depend on each other, so the rest can be read.) */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { XTS_KEY = 64, XTS_SECTOR = 4096, XTS_PIECE = 512 };

struct xts; /* a key; any number of threads use it at once */

/* -ENOMEM, -EINVAL (the halves of the key are the same), -ENOTSUP. */
int xts_new(const uint8_t key[XTS_KEY], struct xts **ret);
/* NULL is left alone.  Returns NULL. */
struct xts *xts_free(struct xts *x);
/* off: bytes from the volume's start; off and n: multiples of XTS_SECTOR; out may be in.
 * -ENOMEM, -EIO. */
int xts_encrypt(struct xts *x, void *out, const void *in, size_t n, uint64_t off);
int xts_decrypt(struct xts *x, void *p, size_t n, uint64_t off);
