/* The links of an instance to networks: each is a port. */
#include "control/balancer.h"
#include "control/kinds/instance.h"
#include "control/network.h"

int instance_bind_network(struct txn *t, struct object *o, char *name, struct object *target,
                          struct err **e)
{
        unsigned def = kind_link(o->kind, "networks"), n = 0;
        struct object *other =
                target->kind == &kind_port ? port_instance(target) ?: port_balancer(target) : NULL;
        char label[NAME_SIZE + 32];

        if (instance_not_adopted(o, "plug", e) < 0)
                return -ENOTSUP;
        if (object_in(o, LIVE) && instance_not_container(o, "plug while it runs", e) < 0)
                return -ENOTSUP;
        if (other)
                return err_set(e, -EBUSY, "port '%s' is plugged into %s", target->name,
                               object_label(other, label));
        object_foreach_link (l, o)
                n += l->def == def;
        if (n >= NICS_MAX)
                return err_set(e, -EDQUOT, "networks of an instance: limit=%d used=%u wanted=1",
                               NICS_MAX, n);
        return 0;
}

/* A link to a network makes a port in it, and goes there instead. */
int instance_bound_network(struct txn *t, struct object *o, struct link *l, struct err **e)
{
        char id[ID_TEXT_SIZE], name[NAME_SIZE];
        unsigned def = l->def;
        struct object *port;

        if (l->target->kind == &kind_network) {
                int r = port_create(t, l->target, o->tenant, o->name, o->no, &port, e);

                if (r < 0)
                        return r;
                snprintf(name, sizeof(name), "%s", l->name);
                txn_unlink(t, o, l);
                l = txn_link(t, o, def, name, port);
        }
        snprintf(id, sizeof(id), "%s", l->id);
        if (object_in(o, LIVE))
                job_start(t, o, &job_instance_plug, id);
        return 0;
}

void instance_unlink_port(struct txn *t, struct object *o, struct link *l)
{
        struct object *port = l->target;

        txn_unlink(t, o, l);
        if (object_num(port, "made_for") == o->no && port->nrefs == 0)
                port_drop(t, port);
}

int instance_unbind_network(struct txn *t, struct object *o, struct link *l, struct err **e)
{
        char id[ID_TEXT_SIZE];

        if (!object_in(o, LIVE)) {
                instance_unlink_port(t, o, l);
                return LINK_LATER; /* it is gone, and l with it */
        }
        if (instance_not_container(o, "unplug while it runs", e) < 0)
                return -ENOTSUP;
        txn_edit(t, o);
        l->leaving = true;
        snprintf(id, sizeof(id), "%s", l->id);
        job_start(t, o, &job_instance_unplug, id);
        return LINK_LATER;
}

void instance_render_addresses(struct control *c, const struct object *o, struct buf *out)
{
        int def = kind_link(o->kind, "networks");
        static const char *const which[] = {"address", "address6"};
        unsigned n = 0;

        object_foreach_link (l, o)
                for (int i = 0; i < 2; i++)
                        if ((int)l->def == def && *object_str(l->target, which[i]))
                                buf_printf(out, "%s%s", n++ ? " " : "",
                                           object_str(l->target, which[i]));
}
