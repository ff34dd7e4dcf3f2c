/* A LUKS2 header in a file of its own, as `cryptsetup --header` takes it: one segment from the
 * data's first byte, aes-xts-plain64, 4096-byte sectors, one keyslot
 * (two while the passphrase changes).
 *
 * The passphrase must be random and as strong as the key that it wraps: the keyslot's PBKDF2 has
 * the fewest iterations that the library takes, because there is nothing to be guessed that more of
 * them would make dear.
 *
 * Threads: one call at a time in the whole process.  Source: libcryptsetup.h. */
#pragma once

#include <stdint.h>
#include "backend/volume/crypt/xts.h"
#include "common/err.h"

/* Makes the header, with a new random key.  Durable on return, but for its name.  -EEXIST. */
int luks_format(const char *path, const char *passphrase, struct err **e);
/* -EKEYREJECTED: not the passphrase; -EUCLEAN: no header, or not one of ours. */
int luks_unlock(const char *path, const char *passphrase, uint8_t ret[XTS_KEY], struct err **e);
/* From now on `next` opens the header, and nothing else; the key stays.  Cut off at any point one of
 * the two opens it, and a repetition ends it.  -EKEYREJECTED: neither does. */
int luks_rekey(const char *path, const char *passphrase, const char *next, struct err **e);
/* Overwrites the header and removes it, durably.  Missing is success. */
int luks_erase(const char *path, struct err **e);
