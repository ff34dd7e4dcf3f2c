/* The drivers that remember, and the store that can be told to refuse. */
#include "rig-fakes.h"

/* --- drivers that remember ------------------------------------------------------------------ */

struct fake fake;

static int v_ping(struct volume_service *s, struct err **e)
{
        WITH_LOCK(&fake.lock);
        return fake.pings && ++fake.pings == 3 ? err_set(e, -ECONNREFUSED, "away") : 0;
}
static int v_create(struct volume_service *s, const char *id, uint64_t size, struct err **e)
{
        WITH_LOCK(&fake.lock);
        if (fake.volume_error)
                return err_set(e, fake.volume_error, "told to fail");
        fake.creates++;
        return 0;
}
static int v_import(struct volume_service *s, const char *id, const char *path, struct err **e)
{
        WITH_LOCK(&fake.lock);
        return fake.away_error ? err_set(e, fake.away_error, "away") : 0;
}
static int v_clone(struct volume_service *s, const char *id, const char *parent, uint64_t size,
                   struct err **e)
{
        WITH_LOCK(&fake.lock);
        fake.clones++;
        return fake.volume_error ? err_set(e, fake.volume_error, "told to fail") : 0;
}
static int v_snapshot(struct volume_service *s, const char *id, const char *volume, struct err **e)
{
        WITH_LOCK(&fake.lock);
        fake.taken_running |= fake.running && !fake.paused;
        fake.snapshot_asked = true;
        fake.snapshot_taken = !fake.volume_error;
        return fake.volume_error ? err_set(e, fake.volume_error, "told to fail") : 0;
}
static int v_shrink(struct volume_service *s, const char *id, uint64_t size, struct err **e)
{
        WITH_LOCK(&fake.lock);
        fake.early = !fake.snapshot_taken;
        return fake.volume_error ? err_set(e, fake.volume_error, "told to fail") : 0;
}
static int v_create_encrypted(struct volume_service *s, const char *id, uint64_t size,
                              const char *passphrase, struct err **e)
{
        WITH_LOCK(&fake.lock);
        snprintf(fake.opens, sizeof(fake.opens), "%s", passphrase);
        snprintf(fake.family, sizeof(fake.family), "%s", id);
        return 0;
}
static int v_rekey(struct volume_service *s, const char *id, const char *passphrase,
                   const char *next, struct err **e)
{
        WITH_LOCK(&fake.lock);
        if (streq(fake.opens, next))
                return 0;
        if (fake.rekey_error)
                return err_set(e, fake.rekey_error, "told to fail");
        if (!streq(fake.opens, passphrase))
                return err_set(e, -EKEYREJECTED, "not its key");
        snprintf(fake.opens, sizeof(fake.opens), "%s", next);
        fake.rekeys++;
        return 0;
}
static int v_resize(struct volume_service *s, const char *id, uint64_t size, struct err **e)
{
        return fake.volume_error ? err_set(e, fake.volume_error, "told to fail") : 0;
}
static int v_remove(struct volume_service *s, const char *id, struct err **e)
{
        WITH_LOCK(&fake.lock);
        fake.removes++;
        return fake.remove_error ? err_set(e, fake.remove_error, "told to fail") : 0;
}
static int v_set_limits(struct volume_service *s, const char *id, const struct volume_limits *l,
                        struct err **e)
{
        WITH_LOCK(&fake.lock);
        fake.limits_calls++;
        if (fake.limits_error)
                return err_set(e, fake.limits_error, "told to fail");
        fake.limits = *l;
        if (fake.hold_after_limits)
                hold_commits();
        fake.hold_after_limits = false;
        return 0;
}
static int v_stats(struct volume_service *s, int (*each)(void *arg, const struct volume_stats *v),
                   void *arg, struct err **e)
{
        struct volume_stats v = {.since = 1};

        pthread_mutex_lock(&fake.lock);
        strcpy(v.id, fake.stats_id);
        v.op[VOLUME_REQ_READ].ops = ++fake.stats_calls;
        pthread_mutex_unlock(&fake.lock);
        return each(arg, &v);
}
static int v_list(struct volume_service *s, int (*each)(void *arg, const struct volume_facts *f),
                  void *arg, struct err **e)
{
        return 0;
}
static int v_stat(struct volume_service *s, const char *id, struct volume_facts *ret,
                  struct err **e)
{
        *ret = (struct volume_facts){.size = 1 << 20};
        snprintf(ret->family, sizeof(ret->family), "%s", fake.family);
        return 0;
}
static int v_export(struct volume_service *s, const struct volume_export *x, char **ret,
                    struct err **e)
{
        WITH_LOCK(&fake.lock);
        fake.exports++;
        *ret = strdup("/socket");
        return 0;
}
static int v_unexport(struct volume_service *s, const char *id, struct err **e)
{
        WITH_LOCK(&fake.lock);
        return fake.away_error ? err_set(e, fake.away_error, "away") : 0;
}
const struct volume_service_ops fake_volume_ops = {.name = "fake",
                                                   .ping = v_ping,
                                                   .create = v_create,
                                                   .import = v_import,
                                                   .clone = v_clone,
                                                   .snapshot = v_snapshot,
                                                   .resize = v_resize,
                                                   .shrink = v_shrink,
                                                   .remove = v_remove,
                                                   .stat = v_stat,
                                                   .export = v_export,
                                                   .create_encrypted = v_create_encrypted,
                                                   .rekey = v_rekey,
                                                   .set_limits = v_set_limits,
                                                   .stats = v_stats,
                                                   .list = v_list,
                                                   .unexport = v_unexport};

static int i_create(struct image_service *s, const char *id, struct err **e)
{
        return 0;
}
static int i_open(struct image_service *s, const char *id, bool w, struct image_blob **ret,
                  struct err **e)
{
        *ret = (struct image_blob *)&fake;
        return 0;
}
static int i_pwrite(struct image_blob *b, const void *p, size_t n, uint64_t off)
{
        return 0;
}
static int64_t i_size(struct image_blob *b)
{
        return 0;
}
static int i_sync(struct image_blob *b)
{
        return 0;
}
static void i_close(struct image_blob *b)
{
}
static int i_inspect(struct image_service *s, const char *id, const char *hint, uint64_t max,
                     struct image_facts *ret, struct err **e)
{
        *ret = (struct image_facts){IMAGE_QCOW2, 1 << 20, 4096};
        return 0;
}
static int i_checksum(struct image_service *s, const char *id, char ret[65],
                      const struct image_progress *p, struct err **e)
{
        memset(ret, 'a', 64);
        ret[64] = '\0';
        return 0;
}
static int i_publish(struct image_service *s, const char *id, const struct image_facts *f,
                     const struct image_progress *p, char **ret, struct err **e)
{
        *ret = strdup("/raw");
        return 0;
}
static int i_unpublish(struct image_service *s, const char *id, struct err **e)
{
        return 0;
}
static int i_remove(struct image_service *s, const char *id, struct err **e)
{
        return 0;
}
const struct image_service_ops fake_image_ops = {.name = "fake",
                                                 .create = i_create,
                                                 .open = i_open,
                                                 .pwrite = i_pwrite,
                                                 .size = i_size,
                                                 .sync = i_sync,
                                                 .close = i_close,
                                                 .inspect = i_inspect,
                                                 .checksum = i_checksum,
                                                 .publish = i_publish,
                                                 .unpublish = i_unpublish,
                                                 .remove = i_remove};

static int c_start(struct compute *c, const struct guest *g, struct err **e)
{
        WITH_LOCK(&fake.lock);
        if (fake.start_error)
                return err_set(e, fake.start_error, "told to fail");
        fake.starts++;
        snprintf(fake.uuid, sizeof(fake.uuid), "%s", g->uuid);
        snprintf(fake.cd, sizeof(fake.cd), "%s", g->cdrom.socket ? g->cdrom.export : "");
        if (g->ndisks)
                snprintf(fake.boots, sizeof(fake.boots), "%s", g->disks[0].target);
        fake.running = true;
        return 0;
}
static int c_off(struct compute *c, const char *uuid, struct err **e)
{
        WITH_LOCK(&fake.lock);
        fake.running = fake.paused = false;
        return 0;
}
/* As an engine it tells of it. */
static int c_shutdown(struct compute *c, const char *uuid, struct err **e)
{
        c_off(c, uuid, e);
        control_guest_changed(fake.c, uuid);
        return 0;
}
static int c_pause(struct compute *c, const char *uuid, struct err **e)
{
        WITH_LOCK(&fake.lock);
        fake.paused = true;
        return 0;
}
static int c_resume(struct compute *c, const char *uuid, struct err **e)
{
        WITH_LOCK(&fake.lock);
        fake.paused = false;
        return 0;
}
static int c_reboot(struct compute *c, const char *uuid, bool hard, struct err **e)
{
        WITH_LOCK(&fake.lock);
        return fake.running ? 0 : err_set(e, -ENOENT, "there is no guest");
}
static int c_save(struct compute *c, const char *uuid, const char *path,
                  const struct compute_watch *w, struct err **e)
{
        WITH_LOCK(&fake.lock);
        if (fake.save_error)
                return err_set(e, fake.save_error, "told to fail");
        fake.running = false;
        return file_replace(path, "memory", 6, 0600, e);
}
static int c_saved(struct compute *c, const char *path, struct err **e)
{
        return access(path, F_OK) < 0 ? err_set(e, -ENOENT, "no memory") : 0;
}
static int c_restore(struct compute *c, const char *uuid, const char *path, struct err **e)
{
        WITH_LOCK(&fake.lock);
        assert_int_equal(access(path, F_OK), 0);
        if (fake.restore_error)
                return err_set(e, fake.restore_error, "told to fail");
        fake.running = fake.paused = true;
        return 0;
}
static int c_keys(struct compute *c, const char *uuid, const char *keys, struct err **e)
{
        WITH_LOCK(&fake.lock);
        snprintf(fake.told, sizeof(fake.told), "%s", keys);
        return 0;
}
static int c_nmi(struct compute *c, const char *uuid, struct err **e)
{
        return c_keys(c, uuid, "nmi", e);
}
static int c_password(struct compute *c, const char *uuid, const char *user, const char *hash,
                      struct err **e)
{
        char both[200];

        snprintf(both, sizeof(both), "%s %s", user, hash);
        return c_keys(c, uuid, both, e);
}

static int c_describe(struct compute *c, const char *uuid, char **ret, struct err **e)
{
        *ret = strdup("<domain/>");
        return 0;
}

static int c_set_vcpus(struct compute *c, const char *uuid, unsigned vcpus, struct err **e)
{
        WITH_LOCK(&fake.lock);
        if (fake.vcpus_error)
                return err_set(e, fake.vcpus_error, "told to fail");
        fake.vcpus = vcpus;
        return 0;
}

static int c_set_memory(struct compute *c, const char *uuid, uint64_t bytes, struct err **e)
{
        WITH_LOCK(&fake.lock);
        if (fake.memory_error)
                return err_set(e, fake.memory_error, "told to fail");
        fake.memory = bytes;
        return 0;
}

static int c_media(struct compute *c, const char *uuid, const struct guest_disk *d, struct err **e)
{
        WITH_LOCK(&fake.lock);
        if (fake.media_error && !streq(fake.cd, d ? d->export : ""))
                return err_set(e, fake.media_error, "told to fail");
        snprintf(fake.cd, sizeof(fake.cd), "%s", d ? d->export : "");
        return 0;
}

static int c_screen(struct compute *c, const char *uuid, const char *password, int64_t until,
                    struct err **e)
{
        WITH_LOCK(&fake.lock);
        if (fake.screen_error)
                return err_set(e, fake.screen_error, "told to fail");
        snprintf(fake.told, sizeof(fake.told), "%s", password);
        return 0;
}

static int c_stats(struct compute *c,
                   void (*each)(void *arg, const char *uuid, const struct guest_stats *s),
                   void *arg, struct err **e)
{
        struct guest_stats s = {.ndisks = 1,
                                .disk[0] = {.name = "vda", .rd_ops = 1},
                                .all[GUEST_CPU] = 1234,
                                .all[GUEST_VCPUS] = 2};
        char uuid[37];

        pthread_mutex_lock(&fake.lock);
        memcpy(uuid, fake.uuid, sizeof(uuid));
        pthread_mutex_unlock(&fake.lock);
        each(arg, uuid, &s);
        return 0;
}

static int c_freeze(struct compute *c, const char *uuid, struct err **e)
{
        WITH_LOCK(&fake.lock);
        fake.freezes++;
        if (fake.freeze_error)
                return err_set(e, fake.freeze_error, "told not to freeze");
        fake.frozen = true;
        return 0;
}
static int c_thaw(struct compute *c, const char *uuid, struct err **e)
{
        WITH_LOCK(&fake.lock);
        assert_false(fake.paused); /* its agent would hear nothing */
        fake.thaws++;
        if (fake.thaw_failures) {
                fake.thaw_failures--;
                return err_set(e, -ENOTCONN, "told not to thaw");
        }
        fake.frozen = false;
        return 0;
}
static int c_state(struct compute *c, const char *uuid, enum guest_state *ret, struct err **e)
{
        WITH_LOCK(&fake.lock);
        *ret = !fake.running ? GUEST_GONE : fake.paused ? GUEST_PAUSED : GUEST_RUNNING;
        return 0;
}
static int c_list(struct compute *c, int (*each)(void *arg, const char *uuid, enum guest_state s),
                  void *arg, struct err **e)
{
        return 0;
}
static int c_attach(struct compute *c, const char *uuid, const struct guest_disk *d, struct err **e)
{
        return 0;
}
static int c_detach(struct compute *c, const char *uuid, const char *target, int ms, struct err **e)
{
        WITH_LOCK(&fake.lock);
        if (fake.detach_error)
                return err_set(e, fake.detach_error, "told to fail");
        return 0;
}
static int c_grow(struct compute *c, const char *uuid, const char *target, uint64_t size,
                  struct err **e)
{
        WITH_LOCK(&fake.lock);
        if (fake.grow_error)
                return err_set(e, fake.grow_error, "told to fail");
        if (!fake.running)
                return err_set(e, -ENOENT, "no guest");
        fake.grown = streq(target, "vda") ? size : 1;
        return 0;
}
const struct compute_ops fake_compute_ops = {.name = "fake",
                                             .start = c_start,
                                             .shutdown = c_shutdown,
                                             .destroy = c_off,
                                             .reboot = c_reboot,
                                             .pause = c_pause,
                                             .resume = c_resume,
                                             .save = c_save,
                                             .saved = c_saved,
                                             .restore = c_restore,
                                             .keys = c_keys,
                                             .set_vcpus = c_set_vcpus,
                                             .set_memory = c_set_memory,
                                             .media = c_media,
                                             .screen = c_screen,
                                             .stats = c_stats,
                                             .nmi = c_nmi,
                                             .describe = c_describe,
                                             .password = c_password,
                                             .freeze = c_freeze,
                                             .thaw = c_thaw,
                                             .attach = c_attach,
                                             .detach = c_detach,
                                             .state = c_state,
                                             .list = c_list,
                                             .grow = c_grow};

int open_fake_compute(void *arg, struct compute **ret, struct err **e)
{
        *ret = &fake.compute;
        return 0;
}

/* --- a store that can be told to refuse --------------------------------------------------------
 */

struct refusing refusing;

void hold_commits(void)
{
        WITH_LOCK(&refusing.lock);
        refusing.hold = true;
}

/* Until n transactions wait. */
void await_held(unsigned n)
{
        WITH_LOCK(&refusing.lock);
        while (refusing.nheld < n)
                pthread_cond_wait(&refusing.cond, &refusing.lock);
}

void release_commits(void)
{
        WITH_LOCK(&refusing.lock);
        refusing.hold = false;
        for (unsigned i = 0; i < refusing.nheld; i++)
                refusing.real->ops->commit(refusing.real, refusing.held[i]);
        refusing.nheld = 0;
}

static void *refuse_main(void *arg)
{
        struct store_txn *t = arg;
        struct err *e = NULL;

        err_set(&e, -ENOSPC, "told to fail");
        t->done(t->arg, STORE_FAILED, e);
        err_free(e);
        store_txn_free(t);
        return NULL;
}

static int r_load(struct store *s, int (*each)(void *arg, const struct store_record *r), void *arg,
                  struct err **e)
{
        struct refusing *f = (struct refusing *)s;

        return f->real->ops->load(f->real, each, arg, e);
}
static void r_commit(struct store *s, struct store_txn *t)
{
        struct refusing *f = (struct refusing *)s;
        pthread_t thread;

        WITH_LOCK(&f->lock);
        if (f->hold) {
                assert_true(f->nheld < ARRAY_SIZE(f->held));
                f->held[f->nheld++] = t;
                pthread_cond_broadcast(&f->cond);
                return;
        }
        if (!f->refuse) {
                f->real->ops->commit(f->real, t);
                return;
        }
        pthread_create(&thread, NULL, refuse_main, t);
        pthread_detach(thread);
}
static void r_close(struct store *s)
{
        struct refusing *f = (struct refusing *)s;

        f->real->ops->close(f->real);
}
const struct store_ops refusing_ops = {
        .name = "refusing", .load = r_load, .commit = r_commit, .close = r_close};
