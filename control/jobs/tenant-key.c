/* A key to its Ceph namespace for a tenant who is to use it with Ceph's own tools.  On request
 * only; the store does not have it: it goes into a file on the host that only root reads,
 * <state>/ceph-keys/TENANT.keyring. */
#include "control/jobs/jobs.h"

#include "common/fileio.h"

/* The first Ceph pool.  -ENOTSUP: all volumes are in files. */
static int ceph_pool(const struct control *c, char ret[POOL_SIZE], struct err **e)
{
        if (pool_ceph(c, ret) && c->cfg.volumes->ops->grant)
                return 0;
        return err_set(e, -ENOTSUP, "no volumes of this cloud are in Ceph");
}

int tenant_ceph_key(struct txn *t, struct object *o, const char *args, struct err **e)
{
        char pool[POOL_SIZE];
        int r;

        if (*args && !streq(args, "revoke"))
                return err_at(e, -EINVAL, args, strlen(args), 0, strlen(args),
                              "expected nothing, or revoke");
        r = ceph_pool(t->c, pool, e);
        if (r == 0)
                job_start(t, o, &job_tenant_key, args);
        return r;
}

static char *keyring(const struct control *c, const char *tenant)
{
        return xcheck(path_printf("%s/ceph-keys/%s.keyring", c->cfg.state, tenant));
}

static int write_key(const char *path, const char *key, struct err **e)
{
        _cleanup_free_ char *dir = strndup(path, strrchr(path, '/') - path);
        int r = dir ? mkdir_parents(dir, 0700, e) : err_errno(e, -ENOMEM, "key");

        return r < 0 ? r : file_replace(path, key, strlen(key), 0600, e);
}

int tenant_revoke_key(struct job *j, const char *tenant, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        _cleanup_free_ char *path = keyring(j->c, tenant), *key = NULL;
        char pool[POOL_SIZE];
        int r = ceph_pool(j->c, pool, e);

        if (r == 0)
                r = s->ops->grant(s, pool, tenant, true, &key, e);
        if (r == 0 && unlink(path) < 0 && errno != ENOENT)
                r = err_errno(e, -errno, "remove '%s'", path);
        return r;
}

static int step_key(struct job *j, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        _cleanup_free_ char *path = NULL, *key = NULL;
        char pool[POOL_SIZE];
        struct facts f;
        int r = job_facts(j, &f, e);

        if (r == 0 && streq(j->args, "revoke"))
                return tenant_revoke_key(j, f.name, e);
        if (r == 0)
                r = ceph_pool(j->c, pool, e);
        if (r == 0)
                r = s->ops->grant(s, pool, f.name, false, &key, e);
        if (r < 0)
                return r;
        path = keyring(j->c, f.name);
        r = write_key(path, key, e);
        explicit_bzero(key, strlen(key));
        return r;
}

static int done(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        const bool revoked = streq(j->args, "revoke");

        if (!o)
                return 0;
        txn_set_num(t, o, "ceph_key", !revoked);
        if (revoked)
                txn_event(t, o, "its Ceph key is revoked");
        else
                txn_event(t, o, "its Ceph key is in %s/ceph-keys/%s.keyring on host %s",
                          t->c->cfg.state, o->name, t->c->cfg.host);
        return 0;
}

static const struct job_step steps[] = {{"key", step_key}};

const struct job_def job_tenant_key = {.op = "tenant.ceph-key",
                                       .deadline = 600,
                                       .patient = true,
                                       .steps = steps,
                                       .nsteps = ARRAY_SIZE(steps),
                                       .done = done};
