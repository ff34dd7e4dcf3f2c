/* What a tenant's volumes take of the disk, for df(1). */
#include "control/internal.h"

int control_space(struct control *c, const struct object *o, uint64_t *ret_limit,
                  uint64_t *ret_used)
{
        const struct object *tenant = o && o->kind == &kind_tenant ? o : o ? o->tenant : NULL;
        struct room *room = tenant ? model_room(c, tenant) : NULL;
        struct collection *l;

        if (!room)
                return -ENOENT;
        l = &room->lists[kind_index(&kind_volume)];
        *ret_limit = quota_limit(tenant, Q_VOLUME_SIZE);
        *ret_used = 0;
        for (size_t i = 0; i < l->n; i++)
                *ret_used += stats_used(c, l->v[i]);
        return 0;
}
