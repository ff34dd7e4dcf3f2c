/* Secrets in the kernel's keyring of this process's user: they outlive the process, not the boot,
 * and reach no disk.  Every function may fail where there are no keyrings (in many containers).
 *
 * Any thread.  Source: add_key(2), keyctl(2), user-keyring(7). */
#pragma once

#include <stddef.h>

/* In place of an older one of that name. */
int keyring_put(const char *name, const char *secret);
/* The secret, NUL-terminated.  -ENOKEY; -ENOBUFS: longer than n - 1 bytes. */
int keyring_get(const char *name, char *ret, size_t n);
/* Missing is success. */
void keyring_drop(const char *name);
