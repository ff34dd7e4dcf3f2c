/* Quotas and usage, counted from the objects.
 *
 * Each commit compares what its objects used before and after; a limit that would be passed by
 * growing refuses the whole transaction.  Nothing is stored, so nothing can drift. */
#include "control/jobs/jobs.h"

#include "common/size.h"

static const char *const quota_names[NQUOTAS] = {
        [Q_INSTANCES] = "instances",     [Q_VCPUS] = "vcpus",
        [Q_MEMORY] = "memory",           [Q_VOLUMES] = "volumes",
        [Q_VOLUME_SIZE] = "volume_size", [Q_IMAGES] = "images",
        [Q_IMAGE_SIZE] = "image_size",   [Q_SNAPSHOTS] = "snapshots",
        [Q_BACKUPS] = "backups",         [Q_BACKUP_SIZE] = "backup_size",
        [Q_NETWORKS] = "networks",       [Q_PORTS] = "ports",
        [Q_ROUTERS] = "routers",         [Q_FLOATING_IPS] = "floating_ips",
        [Q_SECURITY_GROUPS] = "security_groups"};

const char *quota_name(enum quota q)
{
        return quota_names[q];
}

void usage_of(const struct object *o, struct usage *ret)
{
        *ret = (struct usage){};
        if (o->kind == &kind_instance) {
                ret->v[Q_INSTANCES] = 1;
                if (object_in(o, STATE(INSTANCE_SHELVED) | STATE(INSTANCE_DELETED)))
                        return;
                ret->v[Q_VCPUS] = MAX(object_num(o, "vcpus"), object_num(o, "old_vcpus"));
                ret->v[Q_MEMORY] = MAX(object_num(o, "memory"), object_num(o, "old_memory"));
        } else if (o->kind == &kind_volume) {
                ret->v[Q_VOLUMES] = 1;
                ret->v[Q_VOLUME_SIZE] = object_num(o, "size");
        } else if (o->kind == &kind_image) {
                ret->v[Q_IMAGES] = 1;
                ret->v[Q_IMAGE_SIZE] = object_num(o, "size");
        } else if (o->kind == &kind_snapshot) {
                ret->v[Q_SNAPSHOTS] = 1;
        } else if (o->kind == &kind_backup) {
                ret->v[Q_BACKUPS] = 1;
                ret->v[Q_BACKUP_SIZE] = object_num(o, "size") ?: object_num(o, "expected");
        } else {
                static const struct kind *const counted[] = {
                        [Q_NETWORKS] = &kind_network,
                        [Q_PORTS] = &kind_port,
                        [Q_ROUTERS] = &kind_router,
                        [Q_FLOATING_IPS] = &kind_floating_ip,
                        [Q_SECURITY_GROUPS] = &kind_security_group};

                for (int q = Q_NETWORKS; q < (int)ARRAY_SIZE(counted); q++)
                        ret->v[q] = o->kind == counted[q];
        }
}

/* The limits are attributes of the tenant, in the order of enum quota. */
uint64_t quota_limit(const struct object *tenant, enum quota q)
{
        char attr[40];

        snprintf(attr, sizeof(attr), "quota_%s", quota_names[q]);
        return object_num(tenant, attr);
}

static void add(int64_t delta[NQUOTAS], const struct object *o, int sign)
{
        struct usage u;

        usage_of(o, &u);
        for (int q = 0; q < NQUOTAS; q++)
                delta[q] += sign * (int64_t)u.v[q];
}

int quota_check(struct txn *t, struct err **e)
{
        const struct object *tenant = NULL;
        struct room *room;
        char a[SIZE_TEXT_MAX], b[SIZE_TEXT_MAX], d[SIZE_TEXT_MAX];

        _Static_assert(NQUOTAS <= ARRAY_SIZE(t->delta), "room for every quota");
        for (size_t i = 0; i < t->n; i++) {
                struct touch *w = &t->v[i];

                if (!w->o->tenant)
                        continue;
                tenant = w->o->tenant;
                if (w->before)
                        add(t->delta, w->before, -1);
                if (!w->deleted)
                        add(t->delta, w->o, 1);
        }
        if (!tenant)
                return 0;
        room = model_room(t->c, tenant);
        if (!room) /* the tenant itself goes, and its account with it */
                return 0;
        for (int q = 0; q < NQUOTAS; q++) {
                uint64_t limit = quota_limit(tenant, q), used = room->use.v[q];

                if (t->delta[q] <= 0 || limit == VALUE_MAX || used + t->delta[q] <= limit)
                        continue;
                size_human(d, t->delta[q]);
                memset(t->delta, 0, sizeof(t->delta));
                return err_set(e, -EDQUOT, "quota of tenant '%s': %s limit=%s used=%s wanted=%s",
                               tenant->name, quota_names[q], size_human(a, limit),
                               size_human(b, used), d);
        }
        for (int q = 0; q < NQUOTAS; q++)
                room->use.v[q] += t->delta[q];
        t->quota_room = tenant->no;
        return 0;
}

void quota_undo(struct txn *t)
{
        struct object *tenant = t->quota_room ? model_by_no(t->c, t->quota_room) : NULL;
        struct room *room = tenant ? model_room(t->c, tenant) : NULL;

        for (int q = 0; room && q < NQUOTAS; q++)
                room->use.v[q] -= t->delta[q];
        t->quota_room = 0;
}

void quota_count(struct control *c, const struct object *o, int sign)
{
        struct room *room = o->tenant ? model_room(c, o->tenant) : NULL;
        struct usage u;

        usage_of(o, &u);
        for (int q = 0; room && q < NQUOTAS; q++)
                room->use.v[q] += (uint64_t)sign * u.v[q];
}
