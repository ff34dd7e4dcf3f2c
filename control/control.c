/* Start and stop of the control plane. */
#include "control/metrics.h"
#include "control/hosts.h"
#include "control/job.h"
#include "control/network.h"

int control_start(const struct control_config *cfg, struct control **ret, struct err **e)
{
        struct control *c = xcalloc(1, sizeof(*c));
        int r;

        c->cfg = *cfg;
        pthread_mutex_init(&c->texts, NULL);
        pthread_mutex_init(&c->changed_lock, NULL);
        if (pthread_key_create(&c->name, NULL) != 0)
                abort();
        model_init(c);
        wait_init(c);
        jobs_init(c);
        r = record_load(c, e);
        c->next_no = MAX(c->next_no, cfg->numbers + 1);
        if (r == 0 && cfg->store->ops->epoch)
                r = cfg->store->ops->epoch(cfg->store, &c->epoch, e);
        /* Numbers of failures and events never repeat over restarts. */
        atomic_store(&c->seq, c->epoch * 1000000 + 1);
        if (r == 0)
                r = numbers_start(c, e);
        if (r == 0)
                feed_start(c);
        *ret = c; /* before there are threads: what they call back may ask for it */
        if (r == 0)
                r = feed_watch(c, e);
        if (r == 0)
                r = seed_cloud(c, e);
        if (r == 0)
                r = lease_start(c, e);
        if (r == 0)
                r = takeover_start(c, e);
        if (r == 0)
                r = reconcile_start(c, e);
        if (r == 0)
                r = stats_start(c, e);
        if (r == 0)
                r = metrics_start(c, e);
        if (r == 0)
                r = keys_start(c, e);
        if (r == 0)
                r = networks_start(c, e);
        if (r < 0) {
                control_stop(c);
                *ret = NULL;
                return r;
        }
        jobs_run(c);
        return 0;
}

void control_quiesce(struct control *c)
{
        stats_stop(c);
        metrics_stop(c);
        keys_stop(c);
        reconcile_stop(c);
        jobs_stop(c);
        networks_stop(c);
        takeover_stop(c);
        lease_stop(c); /* nothing of ours writes from here on */
        feed_stop(c);
        numbers_stop(c);
}

void control_stop(struct control *c)
{
        struct user *u, *tmp;

        control_quiesce(c);
        wait_done(c);
        jobs_free(c);
        reconcile_free(c);
        stats_free(c);
        metrics_free(c);
        keys_free(c);
        takeover_free(c);
        lease_free(c);
        networks_free(c);
        tokens_free(c);
        feed_free(c);
        numbers_free(c);
        HASH_ITER (hh, c->users, u, tmp) {
                HASH_DEL(c->users, u);
                free(u->errors.text);
                free(u->last);
                free(u->default_tenant);
                free(u);
        }
        model_done(c);
        pthread_mutex_destroy(&c->texts);
        pthread_mutex_destroy(&c->changed_lock);
        pthread_key_delete(c->name);
        free(c);
}

void control_name_changes(struct control *c, const char *name)
{
        pthread_setspecific(c->name, name);
}

bool control_named_done(struct control *c, const char *name)
{
        _cleanup_err_ struct err *err = NULL;
        char id[TXN_NAME_SIZE];
        int r = c->cfg.store->ops->committed(c->cfg.store, txn_name(id, name), &err);

        if (r < 0)
                log_error("whether %s was done: %s", name, err_msg(err));
        return r > 0;
}

void control_on_change(struct control *c, void (*changed)(void *arg, const struct change *ch),
                       void *arg)
{
        WITH_LOCK(&c->changed_lock);
        c->changed_arg = arg;
        c->changed = changed;
}
