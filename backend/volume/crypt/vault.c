/* Members, their marks on disk, and keys.  What makes and removes them is in members.c. */
#include "backend/volume/crypt/vault-private.h"

#include <sys/stat.h>

#include "backend/volume/crypt/keyring.h"
#include "backend/volume/crypt/luks.h"
#include "common/fileio.h"
#include "common/log.h"

enum { PASSPHRASE_MAX = 512 };

struct member *vault_find(struct vault *v, const char *id)
{
        struct member *m;

        HASH_FIND_STR(v->members, id, m);
        return m;
}

struct family *vault_family(struct vault *v, const char *id)
{
        struct family *f;

        HASH_FIND_STR(v->families, id, f);
        return f;
}

struct family *vault_add_family(struct vault *v, const char *id)
{
        struct family *f = calloc(1, sizeof(*f));

        if (f) {
                strcpy(f->id, id);
                WITH_LOCK(&v->lock);
                HASH_ADD_STR(v->families, id, f);
        }
        return f;
}

void vault_drop_family(struct vault *v, struct family *f)
{
        WITH_LOCK(&v->lock);
        HASH_DEL(v->families, f);
        xts_free(f->xts);
        free(f);
}

struct member *vault_add_member(struct vault *v, struct family *f, const char *id, char mark)
{
        struct member *m = calloc(1, sizeof(*m));

        if (m) {
                strcpy(m->id, id);
                m->family = f;
                m->mark = mark;
                WITH_LOCK(&v->lock);
                f->members++;
                HASH_ADD_STR(v->members, id, m);
        }
        return m;
}

void vault_drop_member(struct vault *v, struct member *m)
{
        WITH_LOCK(&v->lock);
        HASH_DEL(v->members, m);
        m->family->members--;
        free(m);
}

struct vault *vault_close(struct vault *v)
{
        struct member *m, *mtmp;
        struct family *f, *ftmp;

        if (!v)
                return NULL;
        HASH_ITER (hh, v->members, m, mtmp) {
                vault_drop_member(v, m);
        }
        HASH_ITER (hh, v->families, f, ftmp) {
                vault_drop_family(v, f);
        }
        while (v->bounces.n > 0)
                free(v->bounces.idle[--v->bounces.n]);
        pthread_mutex_destroy(&v->bounces.lock);
        pthread_mutex_destroy(&v->change);
        pthread_mutex_destroy(&v->keys);
        pthread_mutex_destroy(&v->lock);
        free(v->dir);
        free(v);
        return NULL;
}

bool vault_has(struct vault *v, const char *id)
{
        if (vault_look(v, id, NULL) < 0)
                return true;
        WITH_LOCK(&v->lock);
        return vault_find(v, id);
}

static void keyring_name(const struct family *f, char out[64])
{
        snprintf(out, 64, "stratofs:%s", f->id);
}

static bool key_at_hand(const struct family *f)
{
        char name[64], secret[PASSPHRASE_MAX];
        int r;

        if (f->xts)
                return true;
        keyring_name(f, name);
        r = keyring_get(name, secret, sizeof(secret));
        explicit_bzero(secret, sizeof(secret));
        return r == 0;
}

void vault_facts(struct vault *v, struct volume_info *info)
{
        struct member *m;

        WITH_LOCK(&v->lock);
        m = vault_find(v, info->id);
        if (!m)
                return;
        strcpy(info->family, m->family->id);
        info->locked = !key_at_hand(m->family);
}

void vault_locked(struct vault *v, void (*each)(void *arg, const char *family, const char *id),
                  void *arg)
{
        struct member *m, *mtmp;
        struct family *f, *ftmp;

        WITH_LOCK(&v->lock);
        HASH_ITER (hh, v->families, f, ftmp) {
                f->told = key_at_hand(f);
        }
        HASH_ITER (hh, v->members, m, mtmp) {
                if (!m->family->told && m->mark == 'm') {
                        m->family->told = true;
                        each(arg, m->family->id, m->id);
                }
        }
}

char *vault_header(const struct vault *v, const struct family *f)
{
        return path_printf("%s/%s/header", v->dir, f->id);
}

/* With keys: has the family's key from now on, if that passphrase opens the header. */
static int unlock(struct vault *v, struct family *f, const char *passphrase, struct err **e)
{
        _cleanup_free_ char *header = vault_header(v, f);
        struct xts *x = NULL;
        uint8_t key[XTS_KEY];
        int r = header ? luks_unlock(header, passphrase, key, e) : -ENOMEM;

        if (r < 0)
                return err_prepend(e, r, "family '%s'", f->id);
        r = f->xts ? 0 : xts_new(key, &x);
        explicit_bzero(key, sizeof(key));
        if (r < 0)
                return err_errno(e, r, "key of family '%s'", f->id);
        WITH_LOCK(&v->lock);
        if (x)
                f->xts = x;
        return 0;
}

static int check_passphrase(const char *passphrase, struct err **e)
{
        if (!passphrase[0] || strlen(passphrase) >= PASSPHRASE_MAX)
                return err_set(e, -EINVAL, "a passphrase has 1 to %d bytes", PASSPHRASE_MAX - 1);
        return 0;
}

/* With keys: unlocks, and remembers. */
static int unlock_for_good(struct vault *v, struct family *f, const char *passphrase,
                           struct err **e)
{
        char name[64];
        int r = unlock(v, f, passphrase, e);

        if (r < 0)
                return r;
        keyring_name(f, name);
        r = keyring_put(name, passphrase);
        if (r < 0 && !v->warned) {
                v->warned = true;
                log_warning("no keyring (%s): keys of encrypted volumes are kept in memory only, "
                            "and must be given again after a restart",
                            strerror(-r));
        }
        return 0;
}

int vault_unlock(struct vault *v, struct family *f, const char *passphrase, struct err **e)
{
        int r = check_passphrase(passphrase, e);

        if (r < 0)
                return r;
        WITH_LOCK(&v->keys);
        return unlock_for_good(v, f, passphrase, e);
}

/* Has the key if the keyring has it. */
static int have_key(struct vault *v, struct family *f, struct err **e)
{
        char name[64], secret[PASSPHRASE_MAX];
        int r;

        WITH_LOCK(&v->keys);
        if (f->xts)
                return 0;
        keyring_name(f, name);
        if (keyring_get(name, secret, sizeof(secret)) < 0)
                return err_set(e, -ENOKEY,
                               "it is encrypted and its key (family '%s') has not been given",
                               f->id);
        r = unlock(v, f, secret, e);
        explicit_bzero(secret, sizeof(secret));
        return r;
}

void vault_forget(struct vault *v, struct family *f)
{
        char name[64];

        keyring_name(f, name);
        keyring_drop(name);
}

int vault_key(struct vault *v, const char *id, const char *passphrase, struct err **e)
{
        _cleanup_err_ struct err *why = NULL;
        struct member *m;
        unsigned members;
        int r = vault_look(v, id, e);

        if (r < 0)
                return r;
        WITH_LOCK(&v->change); /* the family stays */
        m = vault_find(v, id);
        if (!m)
                return err_set(e, -ENOENT, "there is no such encrypted volume");
        r = vault_unlock(v, m->family, passphrase, &why);
        if (r != -EKEYREJECTED)
                return r < 0 ? err_move(e, TAKE_PTR(why)) : 0;
        r = share_fetch(v, m->family, &members, e);
        return r < 0 ? r : vault_unlock(v, m->family, passphrase, e);
}

int vault_rekey(struct vault *v, const char *id, const char *passphrase, const char *next,
                struct err **e)
{
        _cleanup_free_ char *header = NULL;
        uint8_t key[XTS_KEY];
        struct member *m;
        unsigned members;
        int r = check_passphrase(passphrase, e);

        if (r == 0)
                r = check_passphrase(next, e);
        if (r == 0)
                r = vault_look(v, id, e);
        if (r < 0)
                return r;
        WITH_LOCK(&v->change);
        m = vault_find(v, id);
        if (!m)
                return err_set(e, -ENOENT, "there is no such encrypted volume");
        header = vault_header(v, m->family);
        if (!header)
                return err_errno(e, -ENOMEM, "header");
        r = share_fetch(v, m->family, &members, e);
        if (r < 0)
                return r;
        WITH_LOCK(&v->keys);
        if (members > 1 && luks_unlock(header, next, key, NULL) == -EKEYREJECTED)
                return err_set(e, -EBUSY,
                               "other volumes share its key, %u of them: clones, "
                               "snapshots, or what it was made from",
                               members - 1);
        explicit_bzero(key, sizeof(key));
        r = luks_rekey(header, passphrase, next, e);
        if (r == 0)
                r = share_header(v, m->family, e);
        return r < 0 ? r : unlock_for_good(v, m->family, next, e);
}

static struct vault_volume *volume_new(struct family *f)
{
        struct vault_volume *vv = calloc(1, sizeof(*vv));
        pthread_rwlockattr_t attr;

        if (!vv)
                return NULL;
        vv->xts = f->xts;
        pthread_rwlockattr_init(&attr);
        pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
        for (int i = 0; i < VAULT_STRIPES; i++)
                pthread_rwlock_init(&vv->stripes[i], &attr);
        pthread_rwlockattr_destroy(&attr);
        return vv;
}

/* The driver has the volume open already: nobody removes it, or its family, under us. */
int vault_take(struct vault *v, const char *id, struct member **ret, struct vault_volume **ret_vv,
               struct err **e)
{
        struct member *m;
        int r = vault_look(v, id, e);

        if (r < 0)
                return r;
        pthread_mutex_lock(&v->lock);
        m = vault_find(v, id);
        pthread_mutex_unlock(&v->lock);
        if (!m)
                return err_set(e, -ENOENT, "there is no such volume");
        r = have_key(v, m->family, e);
        if (r < 0)
                return r;
        WITH_LOCK(&v->lock);
        if (!m->volume)
                m->volume = volume_new(m->family);
        if (!m->volume)
                return err_errno(e, -ENOMEM, "open");
        m->users++;
        *ret = m;
        *ret_vv = m->volume;
        return 0;
}

void vault_return(struct vault *v, struct member *m)
{
        WITH_LOCK(&v->lock);
        if (--m->users > 0)
                return;
        for (int i = 0; i < VAULT_STRIPES; i++)
                pthread_rwlock_destroy(&m->volume->stripes[i]);
        free(TAKE_PTR(m->volume));
}

struct bounces *vault_bounces(struct vault *v)
{
        return &v->bounces;
}
