/* The tenants' keys, and the keeper that gives them to a volume service that has not got them: one
 * that began after a boot, or where there is no keyring. */
#include <dirent.h>
#include <fcntl.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <sys/random.h>

#include "common/clock.h"
#include "common/fileio.h"
#include "control/jobs/jobs.h"
#include "control/keys.h"

enum { KEY = TENANT_KEY, LOOK_US = 2000000 };

struct key_keeper {
        pthread_mutex_t files; /* a key is made once */
        pthread_mutex_t lock;
        pthread_cond_t cond;
        pthread_t thread;
        bool running, stop;
        int failed;      /* what the last look came to: it is said when it changes */
        uint64_t *given; /* volumes of several hosts that were looked at here, in order; the
                            thread's */
        size_t ngiven;
};

static char *key_path(struct control *c, const char *tenant)
{
        return xcheck(path_printf("%s/keys/%s", c->cfg.state, tenant));
}

static int key_make(struct control *c, const char *path, uint8_t key[KEY], struct err **e)
{
        _cleanup_free_ char *dir = xcheck(path_printf("%s/keys", c->cfg.state));
        int r = mkdir_parents(dir, 0700, e);

        if (r == 0 && (r = fsync_parent(dir)) < 0) /* it outlives what is encrypted with it */
                err_errno(e, r, "sync '%s'", c->cfg.state);
        if (r == 0 && getrandom(key, KEY, 0) != KEY)
                r = err_errno(e, -EIO, "random bytes");
        return r == 0 ? file_replace(path, key, KEY, 0600, e) : r;
}

static int file_key(struct control *c, const char *tenant, bool make, uint8_t key[KEY],
                    struct err **e)
{
        _cleanup_free_ char *path = key_path(c, tenant);
        _cleanup_close_ int fd = -1;
        int r;

        WITH_LOCK(&c->keys->files);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 && errno == ENOENT && make)
                return key_make(c, path, key, e);
        if (fd < 0)
                return err_set(e, errno == ENOENT ? -ENOKEY : -errno, "the tenant's key '%s': %m",
                               path);
        r = read_full(fd, key, KEY);
        return r < 0 ? err_errno(e, r, "the tenant's key '%s'", path) : 0;
}

/* Of several hosts the store has the keys; one that a host has in a file is from before. */
static int key_read(struct control *c, const char *tenant, bool make, uint8_t key[KEY],
                    struct err **e)
{
        _cleanup_err_ struct err *why = NULL;
        int r;

        if (!feed_shared(c))
                return file_key(c, tenant, make, key, e);
        r = keys_cloud_get(c, tenant, key, &why);
        if (r != -ENOENT)
                return r < 0 ? err_move(e, TAKE_PTR(why)) : 0;
        why = err_free(why);
        r = file_key(c, tenant, false, key, &why);
        if (r == -ENOKEY && make)
                return keys_cloud_make(c, tenant, key, e);
        if (r == 0 && c->cfg.cloud_key)
                return keys_cloud_put(c, tenant, key, e);
        return r < 0 ? err_move(e, TAKE_PTR(why)) : 0;
}

/* HKDF-SHA-256, without salt: the key is random already. */
static int derive(const uint8_t key[KEY], const char *family, uint8_t out[KEY])
{
        EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
        EVP_KDF_CTX *ctx = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
        char info[64];
        OSSL_PARAM params[] = {
                OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)"SHA256", 0),
                OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)key, KEY),
                OSSL_PARAM_construct_octet_string(
                        OSSL_KDF_PARAM_INFO, info,
                        snprintf(info, sizeof(info), "stratofs family %s", family)),
                OSSL_PARAM_construct_end()};
        int r = ctx && EVP_KDF_derive(ctx, out, KEY, params) == 1 ? 0 : -EIO;

        EVP_KDF_CTX_free(ctx);
        EVP_KDF_free(kdf);
        return r;
}

int keys_passphrase(struct control *c, const char *tenant, const char *family, bool make,
                    char ret[PASSPHRASE_SIZE], struct err **e)
{
        uint8_t key[KEY], out[KEY];
        int r = key_read(c, tenant, make, key, e);

        if (r < 0)
                return r;
        r = derive(key, family, out);
        for (int i = 0; i < KEY; i++)
                snprintf(ret + 2 * i, 3, "%02x", out[i]);
        explicit_bzero(key, sizeof(key));
        explicit_bzero(out, sizeof(out));
        return r < 0 ? err_errno(e, r, "key of family '%s'", family) : 0;
}

static int tenant_of(struct control *c, const char *volume, char ret[ID_TEXT_SIZE], struct err **e)
{
        struct object *o = NULL;
        sd_id128_t id;

        control_rdlock(c);
        if (id_parse(volume, &id) == 0)
                o = model_by_id(c, id);
        if (o && o->tenant)
                id_text(ret, o->tenant->id);
        else
                o = NULL;
        control_unlock(c);
        return o ? 0 : err_set(e, -ENOENT, "volume '%s' is nobody's", volume);
}

static int give(struct control *c, const char *volume, const char *family, struct err **e)
{
        struct volume_service *s = c->cfg.volumes;
        char tenant[ID_TEXT_SIZE], passphrase[PASSPHRASE_SIZE];
        int r = tenant_of(c, volume, tenant, e);

        if (r == 0)
                r = keys_passphrase(c, tenant, family, false, passphrase, e);
        if (r < 0)
                return r;
        r = s->ops->key(s, volume, passphrase, e);
        explicit_bzero(passphrase, sizeof(passphrase));
        return r;
}

int keys_unlock(struct control *c, const char *volume, struct err **e)
{
        struct volume_service *s = c->cfg.volumes;
        struct volume_facts f;
        int r = s->ops->stat(s, volume, &f, e);

        return r == 0 && f.locked ? give(c, volume, f.family, e) : r;
}

int keys_erase(struct control *c, const char *tenant, struct err **e)
{
        _cleanup_free_ char *path = key_path(c, tenant);
        _cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
        uint8_t noise[KEY];
        int r = 0;

        if (fd < 0)
                return errno == ENOENT ? 0 : err_errno(e, -errno, "open '%s'", path);
        if (getrandom(noise, KEY, 0) != KEY)
                r = -EIO;
        if (r == 0)
                r = pwrite_full(fd, noise, KEY, 0);
        if (r == 0 && (fsync(fd) < 0 || unlink(path) < 0))
                r = -errno;
        if (r == 0)
                r = fsync_parent(path);
        return r < 0 ? err_errno(e, r, "erase '%s'", path) : 0;
}

/* ---- the keeper ---- */

struct look {
        struct control *c;
        int failed;
        struct err *why; /* the first */
};

static int give_one(void *arg, const char *id, const char *family)
{
        struct look *l = arg;
        _cleanup_err_ struct err *why = NULL;
        int r = give(l->c, id, family, &why);

        if (r < 0 && !l->failed) {
                l->failed = r;
                l->why = TAKE_PTR(why);
        }
        return 0; /* the others may be luckier */
}

static int by_number(const void *a, const void *b)
{
        const uint64_t *x = a, *y = b;

        return *x < *y ? -1 : *x > *y;
}

/* One that this host has not looked at yet; 0: there is none after that number. */
static uint64_t next_of_others(struct control *c, uint64_t after, char id[ID_TEXT_SIZE])
{
        struct key_keeper *k = c->keys;
        struct object *found = NULL;

        control_rdlock(c);
        for (struct object *o = c->by_no; o; o = o->hh_no.next)
                if (o->kind == &kind_volume && o->no > after && object_num(o, "encrypted") &&
                    object_in(o, STATE(VOLUME_AVAILABLE) | STATE(VOLUME_IN_USE)) &&
                    (!found || o->no < found->no) &&
                    !(k->ngiven &&
                      bsearch(&o->no, k->given, k->ngiven, sizeof(*k->given), by_number)))
                        found = o;
        if (found)
                id_text(id, found->id);
        after = found ? found->no : 0;
        control_unlock(c);
        return after;
}

/* What another host made blockd knows of only when it is asked for it. */
static void look_at_others(struct control *c, struct look *l)
{
        struct key_keeper *k = c->keys;
        char id[ID_TEXT_SIZE];

        for (uint64_t no = 0; (no = next_of_others(c, no, id));) {
                _cleanup_err_ struct err *why = NULL;
                int r = keys_unlock(c, id, &why);

                if (r == -ECONNREFUSED)
                        return;
                if (r < 0 && !l->failed) {
                        l->failed = r;
                        l->why = TAKE_PTR(why);
                }
                if (r < 0)
                        continue;
                k->given = xrealloc(k->given, k->ngiven + 1, sizeof(*k->given));
                k->given[k->ngiven++] = no;
                qsort(k->given, k->ngiven, sizeof(*k->given), by_number);
        }
}

static void look(struct control *c)
{
        struct volume_service *s = c->cfg.volumes;
        struct look l = {.c = c};

        s->ops->locked(s, give_one, &l, NULL); /* blockd may be away: it is asked again soon */
        if (feed_shared(c))
                look_at_others(c, &l);
        if (l.failed && l.failed != c->keys->failed)
                log_error("an encrypted volume stays locked: %s", err_msg(l.why));
        c->keys->failed = l.failed;
        err_free(l.why);
}

/* No tenant has a key: nothing can be locked. */
static bool idle(struct control *c)
{
        if (feed_shared(c) && c->cfg.cloud_key)
                return false;
        _cleanup_free_ char *dir = xcheck(path_printf("%s/keys", c->cfg.state));

        return access(dir, F_OK) < 0;
}

/* Once: what this host made when the cloud had no key of its own. */
static void publish(struct control *c)
{
        _cleanup_free_ char *path = xcheck(path_printf("%s/keys", c->cfg.state));
        struct dirent *de;
        DIR *d;

        if (!feed_shared(c) || !c->cfg.cloud_key || !(d = opendir(path)))
                return;
        while ((de = readdir(d))) {
                _cleanup_err_ struct err *why = NULL;
                uint8_t key[KEY];

                if (de->d_name[0] != '.' && key_read(c, de->d_name, false, key, &why) < 0)
                        log_warning("key of tenant %s: %s", de->d_name, err_msg(why));
                explicit_bzero(key, sizeof(key));
        }
        closedir(d);
}

static void *keeper_main(void *arg)
{
        struct control *c = arg;
        struct key_keeper *k = c->keys;

        publish(c);
        pthread_mutex_lock(&k->lock);
        while (!k->stop) {
                struct timespec next;

                pthread_mutex_unlock(&k->lock);
                if (!idle(c))
                        look(c);
                next = clock_timespec(clock_mono() + LOOK_US);
                pthread_mutex_lock(&k->lock);
                while (!k->stop && pthread_cond_timedwait(&k->cond, &k->lock, &next) == 0)
                        ;
        }
        pthread_mutex_unlock(&k->lock);
        return NULL;
}

int keys_start(struct control *c, struct err **e)
{
        struct key_keeper *k = xcalloc(1, sizeof(*k));
        pthread_condattr_t a;

        pthread_condattr_init(&a);
        pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
        pthread_mutex_init(&k->files, NULL);
        pthread_mutex_init(&k->lock, NULL);
        pthread_cond_init(&k->cond, &a);
        pthread_condattr_destroy(&a);
        c->keys = k;
        if (!c->cfg.volumes || !c->cfg.volumes->ops->locked)
                return 0;
        k->running = pthread_create(&k->thread, NULL, keeper_main, c) == 0;
        return k->running ? 0 : err_set(e, -EAGAIN, "no thread for the keys");
}

void keys_stop(struct control *c)
{
        struct key_keeper *k = c->keys;

        if (!k)
                return;
        pthread_mutex_lock(&k->lock);
        k->stop = true;
        pthread_cond_signal(&k->cond);
        pthread_mutex_unlock(&k->lock);
        if (k->running)
                pthread_join(k->thread, NULL);
        k->running = false;
}

void keys_free(struct control *c)
{
        struct key_keeper *k = c->keys;

        if (!k)
                return;
        pthread_cond_destroy(&k->cond);
        pthread_mutex_destroy(&k->lock);
        pthread_mutex_destroy(&k->files);
        free(k->given);
        free(k);
        c->keys = NULL;
}
