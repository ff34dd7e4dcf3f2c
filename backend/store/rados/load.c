/* What the daemon links: finds the driver and hands over. */
#include "backend/store/rados/rados.h"

#include "common/module.h"

int store_rados_open(const struct store_rados_config *cfg, struct store **ret, struct err **e)
{
        store_rados_entry *entry;
        int r = module_load("backend/store/rados", STORE_RADOS_MODULE, STORE_RADOS_ENTRY, "Ceph",
                            &entry, e);

        return r < 0 ? r : entry(cfg, ret, e);
}

/* What librados would take for something else: its names have no slash here. */
int store_rados_parse(const char *text, struct store_rados_config *cfg, struct err **e)
{
        static const char prefix[] = "rados:";
        const char *pool = text + strlen(prefix), *slash;

        if (strncmp(text, prefix, strlen(prefix)) != 0)
                pool = text + strlen(text);
        slash = strchrnul(pool, '/');
        if (slash == pool || (*slash && (!slash[1] || strchr(slash + 1, '/')))) {
                err_at(e, -EINVAL, text, strlen(text), 0, strlen(text), "no such store");
                err_hint(e, -EINVAL, "rados:POOL or rados:POOL/NAMESPACE");
                return -EINVAL;
        }
        cfg->pool = strndup(pool, (size_t)(slash - pool));
        cfg->space = *slash ? strdup(slash + 1) : NULL;
        if (!cfg->pool || (*slash && !cfg->space))
                return err_errno(e, -ENOMEM, "store '%s'", text);
        return 0;
}
