/* The tenants' keys of a cloud of several hosts: in the tenants' records, each wrapped by the
 * cloud's key (AES-256-GCM), which is a file that every host has and the store has not.
 *
 * In the record, in hexadecimal: a nonce of 12 bytes, the key encrypted, a tag of 16 bytes; the
 * tenant's id is authenticated with it. */
#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "common/fileio.h"
#include "control/jobs/jobs.h"
#include "control/keys.h"

enum { NONCE = 12, TAG = 16, WRAPPED = NONCE + TENANT_KEY + TAG, TEXT = 2 * WRAPPED + 1 };

static int cloud_key(struct control *c, uint8_t ret[TENANT_KEY], struct err **e)
{
        _cleanup_close_ int fd = -1;
        struct stat st;
        int r;

        if (!c->cfg.cloud_key) {
                err_set(e, -ENOKEY,
                        "this host has not the cloud's key, which encrypted volumes of several "
                        "hosts need");
                err_hint(e, -ENOKEY,
                         "head -c 32 /dev/urandom > FILE, once; `cloud_key = FILE` in the "
                         "configuration of each host");
                return -ENOKEY;
        }
        fd = open(c->cfg.cloud_key, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st) < 0)
                return err_errno(e, -errno, "the cloud's key '%s'", c->cfg.cloud_key);
        if (st.st_size != TENANT_KEY || (st.st_mode & 077)) {
                err_set(e, -ENOKEY,
                        "the cloud's key '%s' is no file of %d bytes that only its owner may read",
                        c->cfg.cloud_key, TENANT_KEY);
                return -ENOKEY;
        }
        r = pread_full(fd, ret, TENANT_KEY, 0);
        return r < 0 ? err_errno(e, r, "the cloud's key '%s'", c->cfg.cloud_key) : 0;
}

/* Both ways: out of in, `tag` made or compared. */
static int seal(const uint8_t key[TENANT_KEY], const char *tenant, const uint8_t nonce[NONCE],
                const uint8_t in[TENANT_KEY], uint8_t out[TENANT_KEY], uint8_t tag[TAG], bool wrap)
{
        EVP_CIPHER_CTX *x = EVP_CIPHER_CTX_new();
        int n, ok = x && EVP_CipherInit_ex(x, EVP_aes_256_gcm(), NULL, key, nonce, wrap) == 1 &&
                    EVP_CipherUpdate(x, NULL, &n, (const uint8_t *)tenant, (int)strlen(tenant)) ==
                            1 &&
                    EVP_CipherUpdate(x, out, &n, in, TENANT_KEY) == 1;

        if (ok && !wrap)
                ok = EVP_CIPHER_CTX_ctrl(x, EVP_CTRL_GCM_SET_TAG, TAG, tag) == 1;
        if (ok)
                ok = EVP_CipherFinal_ex(x, out + n, &n) == 1;
        if (ok && wrap)
                ok = EVP_CIPHER_CTX_ctrl(x, EVP_CTRL_GCM_GET_TAG, TAG, tag) == 1;
        EVP_CIPHER_CTX_free(x);
        return ok ? 0 : -EKEYREJECTED;
}

static bool unhex(const char *text, uint8_t *out, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (sscanf(text + 2 * i, "%2hhx", &out[i]) != 1)
                        return false;
        return true;
}

static struct object *tenant_object(struct control *c, const char *tenant)
{
        sd_id128_t id;

        return id_parse(tenant, &id) == 0 ? model_by_id(c, id) : NULL;
}

int keys_cloud_get(struct control *c, const char *tenant, uint8_t ret[TENANT_KEY], struct err **e)
{
        uint8_t key[TENANT_KEY], v[WRAPPED];
        char text[TEXT] = "";
        struct object *o;
        int r;

        control_rdlock(c);
        o = tenant_object(c, tenant);
        if (o)
                snprintf(text, sizeof(text), "%s", object_str(o, "key"));
        control_unlock(c);
        if (!*text)
                return err_set(e, -ENOENT, "the tenant has no key in the store");
        if (strlen(text) != TEXT - 1 || !unhex(text, v, WRAPPED))
                return err_set(e, -EUCLEAN, "the tenant's key in the store is damaged");
        r = cloud_key(c, key, e);
        if (r < 0)
                return r;
        r = seal(key, tenant, v, v + NONCE, ret, v + NONCE + TENANT_KEY, false);
        explicit_bzero(key, sizeof(key));
        return r < 0 ? err_set(e, r,
                               "the cloud's key '%s' does not open the tenant's: it is another one",
                               c->cfg.cloud_key)
                     : 0;
}

/* -EEXIST: another host was quicker. */
static int put_once(struct control *c, const char *tenant, const char *text, struct err **e)
{
        struct object *o;
        struct txn t;
        int r = 0;

        txn_begin(&t, c, NULL);
        o = tenant_object(c, tenant);
        if (!o)
                r = err_set(e, -ENOENT, "the tenant is gone");
        else if (*object_str(o, "key"))
                r = -EEXIST;
        else
                txn_set_str(&t, o, "key", text);
        return txn_end(&t, r, e);
}

int keys_cloud_put(struct control *c, const char *tenant, uint8_t key[TENANT_KEY], struct err **e)
{
        uint8_t wrap[TENANT_KEY], v[WRAPPED];
        char text[TEXT];
        int r = cloud_key(c, wrap, e);

        if (r < 0)
                return r;
        if (getrandom(v, NONCE, 0) != NONCE)
                r = -EIO;
        if (r == 0)
                r = seal(wrap, tenant, v, key, v + NONCE, v + NONCE + TENANT_KEY, true);
        explicit_bzero(wrap, sizeof(wrap));
        if (r < 0)
                return err_errno(e, r, "wrap the tenant's key");
        for (int i = 0; i < WRAPPED; i++)
                snprintf(text + 2 * i, 3, "%02x", v[i]);
        r = AGAIN(c, e, put_once(c, tenant, text, e));
        if (r != -EEXIST)
                return r;
        return keys_cloud_get(c, tenant, key, e);
}

/* Whether somebody has made its key already, on whichever host. */
static bool has_encrypted(struct control *c, const char *tenant)
{
        struct object *o, *v, *tmp;
        bool found = false;

        control_rdlock(c);
        o = tenant_object(c, tenant);
        HASH_ITER (hh_no, c->by_no, v, tmp)
                found = found || (v->kind == &kind_volume && v->tenant == o &&
                                  object_num(v, "encrypted") && v->state != VOLUME_CREATING);
        control_unlock(c);
        return found;
}

int keys_cloud_make(struct control *c, const char *tenant, uint8_t ret[TENANT_KEY], struct err **e)
{
        if (has_encrypted(c, tenant)) {
                err_set(e, -ENOKEY, "the tenant's key is on the host that made it");
                err_hint(e, -ENOKEY,
                         "start stratod there with `cloud_key`, too: it puts it into the store");
                return -ENOKEY;
        }
        if (getrandom(ret, TENANT_KEY, 0) != TENANT_KEY)
                return err_errno(e, -EIO, "random bytes");
        return keys_cloud_put(c, tenant, ret, e);
}
