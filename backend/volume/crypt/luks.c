#include "backend/volume/crypt/luks.h"

#include <fcntl.h>
#include <libcryptsetup.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "common/fault.h"
#include "common/fileio.h"

enum {
        METADATA = 16 << 10, /* of which there are two */
        KEYSLOTS = 512 << 10,
        SIZE = 2 * METADATA + KEYSLOTS,
        ITERATIONS = 1000, /* the least, see luks.h */
};

struct words {
        char text[256]; /* the library's first complaint */
};

static void device_free(struct crypt_device **d)
{
        crypt_free(*d);
}

static void listen(int level, const char *msg, void *arg)
{
        struct words *w = arg;

        if (w && level == CRYPT_LOG_ERROR && !w->text[0])
                snprintf(w->text, sizeof(w->text), "%.*s", (int)strcspn(msg, "\n"), msg);
}

static int failed(const char *path, const struct words *w, int r, struct err **e)
{
        if (w->text[0])
                return err_set(e, r, "LUKS header '%s': %s", path, w->text);
        return err_errno(e, r, "LUKS header '%s'", path);
}

/* The header is given as its own data device, which is only asked for its size. */
static int device_open(const char *path, struct words *w, struct crypt_device **ret)
{
        int r;

        *w = (struct words){};
        crypt_set_log_callback(NULL, listen, NULL);
        crypt_metadata_locking(NULL, 0); /* nobody else writes it */
        r = crypt_init_data_device(ret, path, path);
        if (r == 0)
                crypt_set_log_callback(*ret, listen, w);
        return r;
}

static int make_file(const char *path, struct err **e)
{
        _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        int r;

        if (fd < 0)
                return err_errno(e, -errno, "create '%s'", path);
        r = -posix_fallocate(fd, 0, SIZE);
        return r < 0 ? err_errno(e, r, "create '%s'", path) : 0;
}

static int sync_file(const char *path, struct err **e)
{
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);

        return fd < 0 || fsync(fd) < 0 ? err_errno(e, -errno, "sync '%s'", path) : 0;
}

static const struct crypt_pbkdf_type pbkdf = {.type = CRYPT_KDF_PBKDF2,
                                              .hash = "sha256",
                                              .iterations = ITERATIONS,
                                              .flags = CRYPT_PBKDF_NO_BENCHMARK};

static int format(struct crypt_device *d, const char *path, const char *passphrase)
{
        struct crypt_params_luks2 params = {
                .pbkdf = &pbkdf, .data_device = path, .sector_size = XTS_SECTOR};
        int r = crypt_set_metadata_size(d, METADATA, KEYSLOTS);

        if (r == 0)
                r = crypt_set_data_offset(d, 0);
        if (r == 0)
                r = crypt_format(d, CRYPT_LUKS2, "aes", "xts-plain64", NULL, NULL, XTS_KEY,
                                 &params);
        if (r == 0)
                r = crypt_keyslot_add_by_volume_key(d, 0, NULL, XTS_KEY, passphrase,
                                                    strlen(passphrase));
        return MIN(r, 0);
}

int luks_format(const char *path, const char *passphrase, struct err **e)
{
        _cleanup_(device_free) struct crypt_device *d = NULL;
        struct words w;
        int r = make_file(path, e);

        if (r < 0)
                return r;
        r = device_open(path, &w, &d);
        if (r == 0)
                r = format(d, path, passphrase);
        if (r < 0)
                failed(path, &w, r, e);
        else
                r = sync_file(path, e);
        if (r < 0)
                unlink(path);
        return r;
}

/* A header of another make may be read by cryptsetup and is not read by us. */
static int check(struct crypt_device *d, const char *path, struct err **e)
{
        if (!streq(crypt_get_cipher(d), "aes") || !streq(crypt_get_cipher_mode(d), "xts-plain64") ||
            crypt_get_sector_size(d) != XTS_SECTOR || crypt_get_data_offset(d) != 0 ||
            crypt_get_volume_key_size(d) != XTS_KEY)
                return err_set(e, -EUCLEAN, "LUKS header '%s' was not made here", path);
        return 0;
}

static int load(const char *path, struct words *w, struct crypt_device **ret, struct err **e)
{
        int r = device_open(path, w, ret);

        if (r == 0)
                r = crypt_load(*ret, CRYPT_LUKS2, NULL);
        if (r < 0)
                return failed(path, w, r == -ENOMEM ? r : -EUCLEAN, e);
        return check(*ret, path, e);
}

int luks_unlock(const char *path, const char *passphrase, uint8_t ret[XTS_KEY], struct err **e)
{
        _cleanup_(device_free) struct crypt_device *d = NULL;
        size_t n = XTS_KEY;
        struct words w;
        int r = load(path, &w, &d, e);

        if (r < 0)
                return r;
        r = crypt_volume_key_get(d, CRYPT_ANY_SLOT, (char *)ret, &n, passphrase,
                                 strlen(passphrase));
        if (r == -EPERM)
                return err_set(e, -EKEYREJECTED, "this is not its key");
        return r < 0 ? failed(path, &w, r, e) : 0;
}

/* The keyslot that the passphrase opens, -EPERM. */
static int find_slot(struct crypt_device *d, const char *passphrase)
{
        return crypt_activate_by_passphrase(d, NULL, CRYPT_ANY_SLOT, passphrase, strlen(passphrase),
                                            0);
}

/* Takes away every keyslot but that one; their key material is overwritten. */
static int keep_slot(struct crypt_device *d, int keep)
{
        int r = 0;

        for (int i = 0; i < crypt_keyslot_max(CRYPT_LUKS2) && r == 0; i++) {
                crypt_keyslot_info s = crypt_keyslot_status(d, i);

                if (i != keep && (s == CRYPT_SLOT_ACTIVE || s == CRYPT_SLOT_ACTIVE_LAST))
                        r = crypt_keyslot_destroy(d, i);
        }
        return r;
}

int luks_rekey(const char *path, const char *passphrase, const char *next, struct err **e)
{
        _cleanup_(device_free) struct crypt_device *d = NULL;
        struct words w;
        int slot, r = load(path, &w, &d, e);

        if (r < 0)
                return r;
        slot = find_slot(d, next);
        if (slot == -EPERM) {
                w.text[0] = '\0';
                r = crypt_set_pbkdf_type(d, &pbkdf);
                slot = r < 0 ? r
                             : crypt_keyslot_add_by_passphrase(d, CRYPT_ANY_SLOT, passphrase,
                                                               strlen(passphrase), next,
                                                               strlen(next));
                if (slot == -EPERM)
                        return err_set(e, -EKEYREJECTED, "this is not its key");
                if (slot >= 0 && (r = sync_file(path, e)) < 0)
                        return r;
        }
        r = slot < 0 ? slot : FAULT("volume.rekey");
        if (r == 0)
                r = keep_slot(d, slot);
        return r < 0 ? failed(path, &w, r, e) : sync_file(path, e);
}

static int overwrite(int fd, uint64_t size)
{
        uint8_t noise[64 << 10];

        for (uint64_t off = 0; off < size; off += sizeof(noise)) {
                int r;

                if (getrandom(noise, 256, 0) != 256)
                        return -EIO;
                for (size_t i = 256; i < sizeof(noise); i += 256)
                        memcpy(noise + i, noise, 256);
                r = pwrite_full(fd, noise, MIN(size - off, sizeof(noise)), off);
                if (r < 0)
                        return r;
        }
        return fsync(fd) < 0 ? -errno : 0;
}

int luks_erase(const char *path, struct err **e)
{
        _cleanup_close_ int fd = open(path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
        struct stat st;
        int r;

        if (fd < 0)
                return errno == ENOENT ? 0 : err_errno(e, -errno, "open '%s'", path);
        r = fstat(fd, &st) < 0 ? -errno : overwrite(fd, st.st_size);
        if (r == 0 && unlink(path) < 0)
                r = -errno;
        if (r == 0)
                r = fsync_parent(path);
        return r < 0 ? err_errno(e, r, "erase '%s'", path) : 0;
}
