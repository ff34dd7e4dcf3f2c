#include "backend/volume/crypt/keyring.h"

#include <linux/keyctl.h>
#include <sys/syscall.h>

#include "common/fault.h"
#include "common/macro.h"

/* Possessor and user: view, read, write, search, link, set attributes.  A service need not possess
 * its user's keyring. */
enum { PERMISSIONS = 0x3f3f0000 };

static long control(int op, unsigned long a, unsigned long b, unsigned long c, unsigned long d)
{
        long r = syscall(SYS_keyctl, op, a, b, c, d);

        return r < 0 ? -errno : r;
}

static long find(const char *name)
{
        int r = FAULT("volume.keyring");

        return r < 0 ? r
                     : control(KEYCTL_SEARCH, KEY_SPEC_USER_KEYRING, (unsigned long)"user",
                               (unsigned long)name, 0);
}

int keyring_put(const char *name, const char *secret)
{
        /* Made where it is ours for sure, and then linked: linking displaces one of that name. */
        long key, r = FAULT("volume.keyring");

        if (r < 0)
                return r;
        key = syscall(SYS_add_key, "user", name, secret, strlen(secret), KEY_SPEC_PROCESS_KEYRING);
        if (key < 0)
                return -errno;
        r = control(KEYCTL_SETPERM, key, PERMISSIONS, 0, 0);
        if (r == 0)
                r = control(KEYCTL_LINK, key, KEY_SPEC_USER_KEYRING, 0, 0);
        control(KEYCTL_UNLINK, key, KEY_SPEC_PROCESS_KEYRING, 0, 0);
        return MIN(r, 0);
}

int keyring_get(const char *name, char *ret, size_t n)
{
        long key = find(name), len;

        if (key < 0)
                return key;
        len = control(KEYCTL_READ, key, (unsigned long)ret, n - 1, 0);
        if (len < 0)
                return len;
        if ((size_t)len > n - 1)
                return -ENOBUFS;
        ret[len] = '\0';
        return 0;
}

void keyring_drop(const char *name)
{
        long key = find(name);

        if (key >= 0)
                control(KEYCTL_UNLINK, key, KEY_SPEC_USER_KEYRING, 0, 0);
}
