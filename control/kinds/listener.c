/* Listeners: a port of a load balancer, and where what comes there goes. */
#include "control/balancer.h"
#include "control/network.h"

static int create(struct txn *t, struct object *o, struct err **e)
{
        struct collection *l = model_collection(t->c, o->holder, &kind_listener);

        if (l && l->n > LISTENERS_MAX)
                return err_set(e, -EDQUOT,
                               "listeners of a load balancer: limit=%d used=%zu wanted=1",
                               LISTENERS_MAX, l->n - 1);
        return 0;
}

static int set_port(struct txn *t, struct object *o, union value v, struct err **e)
{
        struct collection *l = model_collection(t->c, o->holder, &kind_listener);

        for (size_t i = 0; i < l->n; i++)
                if (l->v[i] != o && object_num(l->v[i], "port") == v.u)
                        return err_set(e, -EEXIST, "listener '%s' has port %" PRIu64, l->v[i]->name,
                                       v.u);
        txn_set_num(t, o, "port", v.u);
        txn_set_state(t, o, LISTENER_ACTIVE);
        return 0;
}

static int set_protocol(struct txn *t, struct object *o, union value v, struct err **e)
{
        if (v.s && streq(v.s, "https")) {
                err_set(e, -ENOTSUP, "TLS does not end here: the cloud keeps no certificates yet");
                return err_hint(e, -ENOTSUP, "tcp passes TLS through to the members, which end it");
        }
        txn_set_str(t, o, "protocol", v.s);
        return 0;
}

static int set_path(struct txn *t, struct object *o, union value v, struct err **e)
{
        const char *s = v.s ?: "";
        size_t good = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "/._-~=&?:@+,");

        if (s[good] || *s != '/')
                return err_at(e, -EINVAL, s, strlen(s), good, s[good] != '\0',
                              "a path is / and letters, digits, and of /._-~=&?:@+,");
        txn_set_str(t, o, "check_path", s);
        return 0;
}

const struct object *listener_member(const struct object *o, const struct object *target)
{
        const struct object *own = object_target(o->holder, "network");
        int def = kind_link(&kind_instance, "networks");

        if (!own || own->kind != &kind_port)
                return NULL;
        if (target->kind == &kind_port)
                return target->holder == own->holder ? target : NULL;
        object_foreach_link (l, target)
                if ((int)l->def == def && l->target->kind == &kind_port &&
                    l->target->holder == own->holder)
                        return l->target;
        return NULL;
}

static int bind_member(struct txn *t, struct object *o, char *name, struct object *target,
                       struct err **e)
{
        const struct object *own = object_target(o->holder, "network");
        char label[NAME_SIZE + 32];

        if (!own)
                return err_set(e, -EINVAL, "load balancer '%s' is in no network", o->holder->name);
        if (o->nlinks >= MEMBERS_MAX)
                return err_set(e, -EDQUOT, "members of a listener: limit=%d used=%u wanted=1",
                               MEMBERS_MAX, o->nlinks);
        if (target == own)
                return err_set(e, -EINVAL, "it would balance over itself");
        if (!listener_member(o, target))
                return err_set(e, -EINVAL, "%s is not in network '%s'", object_label(target, label),
                               own->holder->name);
        return 0;
}

void listener_drop(struct txn *t, struct object *o)
{
        while (o->nlinks)
                txn_unlink(t, o, &o->links[o->nlinks - 1]);
        txn_delete(t, o);
}

static int remove_listener(struct txn *t, struct object *o, struct err **e)
{
        int r = check_referrers(o, e);

        if (r == 0)
                listener_drop(t, o);
        return r;
}

static const struct attr_def attrs[] = {
        {"protocol", ATTR_WORD, ROLE_MEMBER, .words = "tcp http https", .def = "tcp", .index = true,
         .set = set_protocol,
         .help = "tcp: connections; http: requests, with X-Forwarded-For; https is refused yet"},
        {"port", ATTR_NUMBER, ROLE_MEMBER, .min = 1, .max = 65535, .index = true, .set = set_port,
         .help = "where it listens"},
        {"member_port", ATTR_NUMBER, ROLE_MEMBER, .max = 65535, .index = true,
         .help = "where its members listen; 0: on the same one"},
        {"balance", ATTR_WORD, ROLE_MEMBER, .words = "roundrobin leastconn source",
         .def = "roundrobin", .index = true,
         .help = "in turn, to who has fewest connections, or always the same for an address"},
        {"check", ATTR_WORD, ROLE_MEMBER, .words = "none tcp http", .def = "tcp",
         .help = "whether a member is well: it takes connections, or answers check_path with 2xx "
                 "or "
                 "3xx"},
        {"check_path", ATTR_TEXT, ROLE_MEMBER, .max = 120, .def = "/", .set = set_path,
         .help = "what check=http asks for"},
        {"check_interval", ATTR_NUMBER, ROLE_MEMBER, .min = 1, .max = 3600, .def = "5",
         .help = "seconds; a member that failed three checks gets nothing until two were good"},
        {"description", ATTR_TEXT, ROLE_MEMBER, .max = 255, .help = "words for people"},
};

static const struct link_def links[] = {
        {"members", "instance port", .many = true, .bind = bind_member,
         .help = "who gets what comes, of the load balancer's network"},
};

static const struct state_def states[] = {
        {"draft", .help = "without a port"},
        {"active", .help = "listens"},
};

const struct kind kind_listener = {
        .name = "listener",
        .plural = "listeners",
        .inside = "load_balancer",
        .help = "A port of the load balancer: echo 80 > port, ln -s instances/a members/.",
        .schema = 1,
        .creator = ROLE_MEMBER,
        .attrs = attrs,
        .nattrs = ARRAY_SIZE(attrs),
        .links = links,
        .nlinks = ARRAY_SIZE(links),
        .states = states,
        .nstates = ARRAY_SIZE(states),
        .create = create,
        .remove = remove_listener,
};
