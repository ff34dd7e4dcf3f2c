/* Connecting, the format, closing. */
#include "backend/store/rados/internal.h"
#include "common/fault.h"

static void store_free(struct rados_store *s)
{
        struct scope *sc, *tmp;

        HASH_ITER (hh, s->scopes, sc, tmp) {
                HASH_DEL(s->scopes, sc);
                free(sc);
        }
        if (s->io)
                rados_ioctx_destroy(s->io);
        if (s->cluster)
                rados_shutdown(s->cluster);
        pthread_mutex_destroy(&s->lock);
        pthread_cond_destroy(&s->wake);
        pthread_cond_destroy(&s->settled);
        pthread_cond_destroy(&s->heard);
        free(s->cfg.conf);
        free(s->cfg.user);
        free(s->cfg.pool);
        free(s->cfg.space);
        free(s->cfg.host);
        free(s->where);
        free(s);
}

/* The writers end with empty queues, and what they did is told. */
static void store_close(struct store *store)
{
        struct rados_store *s = (struct rados_store *)store;

        queue_stop(s);
        feed_stop(s);
        store_free(s);
}

static const struct store_ops rados_ops = {
        .name = "rados",
        .load = read_load,
        .commit = queue_commit,
        .committed = read_committed,
        .changes = read_changes,
        .close = store_close,
        .epoch = count_epoch,
        .retire = count_retire,
        .watch = feed_watch,
        .applied = feed_applied,
        .numbers = count_numbers,
        .fence = count_fence,
};

/* librados has no time-outs unless told, and must be told before it connects. */
static int set_timeouts(struct rados_store *s)
{
        static const char *const options[] = {"client_mount_timeout", "rados_mon_op_timeout",
                                              "rados_osd_op_timeout"};
        char text[16];
        int r = 0;

        snprintf(text, sizeof(text), "%u", s->cfg.timeout);
        for (size_t i = 0; r == 0 && i < ARRAY_SIZE(options); i++)
                r = rados_conf_set(s->cluster, options[i], text);
        return r;
}

static int cluster_open(struct rados_store *s, struct err **e)
{
        int r = rados_create2(&s->cluster, "ceph", s->cfg.user ?: "client.admin", 0);

        if (r < 0)
                return store_err(s, e, r, "begin with librados");
        r = rados_conf_read_file(s->cluster, s->cfg.conf);
        if (r < 0)
                return store_err(s, e, r, "read %s", s->cfg.conf ?: "Ceph's configuration");
        r = set_timeouts(s);
        if (r < 0)
                return store_err(s, e, r, "set time-outs");
        r = rados_connect(s->cluster);
        if (r < 0)
                return store_err(s, e, r, "connect as %s", s->cfg.user ?: "client.admin");
        r = rados_ioctx_create(s->cluster, s->cfg.pool, &s->io);
        if (r < 0)
                return store_err(s, e, r, "open pool '%s'", s->cfg.pool);
        rados_ioctx_set_namespace(s->io, s->cfg.space);
        rados_set_pool_full_try(s->io); /* a full pool is an error, not a wait */
        return 0;
}

static int format_one(void *arg, const char *key _unused_, const char *value, size_t len)
{
        char text[16];

        snprintf(text, sizeof(text), "%.*s", (int)MIN(len, sizeof(text) - 1), value);
        *(int *)arg = atoi(text);
        return 0;
}

/* An empty namespace becomes a store. */
static int format_check(struct rados_store *s, struct err **e)
{
        const char *key = "format";
        struct wop w;
        int r, format = 0;

        wop_init(&w);
        rados_write_op_create(w.op, LIBRADOS_CREATE_IDEMPOTENT, NULL);
        r = wop_run(s, &w, STORE_OID);
        wop_done(&w);
        if (r < 0)
                return store_err(s, e, r, "write to the pool");
        wop_init(&w);
        wop_guard(&w, key, "", NULL);
        wop_set(&w, strdup(key), "1", 1);
        r = wop_run(s, &w, STORE_OID);
        wop_done(&w);
        if (r < 0 && r != -ECANCELED)
                return store_err(s, e, r, "write to the pool");
        r = omap_get(s, STORE_OID, &key, 1, format_one, &format);
        if (r < 0)
                return store_err(s, e, r, "read the format");
        if (format > FORMAT)
                return err_set(e, -ENOTSUP, "store '%s' has format %d: a newer release wrote it",
                               s->where, format);
        r = count_moved(s, e);
        if (r < 0)
                return r;
        return format == FORMAT
                       ? 0
                       : err_set(e, -EUCLEAN, "store '%s' has format %d, which there never was",
                                 s->where, format);
}

static struct rados_store *store_new(const struct store_rados_config *cfg)
{
        struct rados_store *s = calloc(1, sizeof(*s));
        pthread_condattr_t a;

        if (!s)
                return NULL;
        s->store.ops = &rados_ops;
        s->cfg = (struct store_rados_config){
                .conf = cfg->conf ? strdup(cfg->conf) : NULL,
                .user = cfg->user ? strdup(cfg->user) : NULL,
                .pool = strdup(cfg->pool),
                .space = strdup(cfg->space ?: "stratofs"),
                .host = strdup(cfg->host && *cfg->host ? cfg->host : "?"),
                .timeout = cfg->timeout ?: 10,
        };
        pthread_mutex_init(&s->lock, NULL);
        pthread_condattr_init(&a);
        pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
        pthread_cond_init(&s->wake, &a);
        pthread_cond_init(&s->settled, NULL);
        pthread_cond_init(&s->heard, &a);
        pthread_condattr_destroy(&a);
        if ((cfg->conf && !s->cfg.conf) || (cfg->user && !s->cfg.user) || !s->cfg.pool ||
            !s->cfg.space || !s->cfg.host ||
            asprintf(&s->where, "rados:%s/%s", s->cfg.pool, s->cfg.space) < 0) {
                store_free(s);
                return NULL;
        }
        return s;
}

/* The module's one symbol. */
__attribute__((visibility("default"))) store_rados_entry store_rados_module_open;

int store_rados_module_open(const struct store_rados_config *cfg, struct store **ret,
                            struct err **e)
{
        struct rados_store *s;
        int r;

        fault_init(); /* of this module's own copy */
        s = store_new(cfg);
        if (!s)
                return err_errno(e, -ENOMEM, "open store 'rados:%s'", cfg->pool);
        r = cluster_open(s, e);
        if (r == 0)
                r = format_check(s, e);
        if (r == 0)
                r = queue_start(s, e);
        if (r < 0) {
                queue_stop(s);
                store_free(s);
                return r;
        }
        *ret = &s->store;
        return 0;
}
