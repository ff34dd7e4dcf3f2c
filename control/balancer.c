#include "control/balancer.h"

#include "control/network.h"

/* --- what is to run here --------------------------------------------------------------------- */

static const struct object *own_port(const struct object *o)
{
        const struct object *port = object_target(o, "network");

        /* Its subnet may have gone. */
        return port && port->kind == &kind_port && *object_str(port, "address") ? port : NULL;
}

const char *balancer_host(struct control *c, const struct object *o)
{
        struct collection *l = model_collection(c, o, &kind_listener);
        bool listens = false;

        for (size_t i = 0; l && i < l->n; i++)
                listens |= l->v[i]->state == LISTENER_ACTIVE;
        if (!own_port(o) || !listens)
                return "";
        return feed_shared(c) ? object_str(o->tenant, "keeper") : c->cfg.host;
}

bool balancer_here(struct control *c, const struct object *o)
{
        return streq(balancer_host(c, o), c->cfg.host);
}

static void plan_members(const struct object *o, struct net_listener *ret)
{
        struct net_backend *v = xcalloc(o->nlinks + 1, sizeof(*v));

        object_foreach_link (l, o) {
                const struct object *port = listener_member(o, l->target);
                const char *a = port ? object_str(port, "address") : "";
                struct net_backend *m = &v[ret->nmembers];

                if (!address_parse(a, strlen(a), &m->address))
                        continue;
                snprintf(m->name, sizeof(m->name), "%s", l->name);
                ret->nmembers++;
        }
        ret->members = v;
}

static void plan_listener(const struct object *o, struct net_listener *ret)
{
        const char *check = object_str(o, "check"), *protocol = object_str(o, "protocol");

        *ret = (struct net_listener){.http = !streq(protocol, "tcp"),
                                     .port = object_num(o, "port"),
                                     .check = streq(check, "http")  ? NET_CHECK_HTTP
                                              : streq(check, "tcp") ? NET_CHECK_TCP
                                                                    : NET_CHECK_NONE,
                                     .interval = object_num(o, "check_interval")};
        ret->member_port = object_num(o, "member_port") ?: ret->port;
        snprintf(ret->name, sizeof(ret->name), "%s", o->name);
        snprintf(ret->balance, sizeof(ret->balance), "%s", object_str(o, "balance"));
        snprintf(ret->path, sizeof(ret->path), "%s", object_str(o, "check_path"));
        if (streq(protocol, "https"))
                ret->pem = xstrdup(object_str(o, "certificate"));
        plan_members(o, ret);
}

static void plan_balancer(struct control *c, const struct object *o, struct net_balancer *ret)
{
        struct collection *l = model_collection(c, o, &kind_listener);
        const char *a = object_str(own_port(o), "address");
        struct net_listener *v = xcalloc(l->n, sizeof(*v));

        *ret = (struct net_balancer){.listeners = v};
        id_text(ret->id, o->id);
        id_text(ret->port, own_port(o)->id);
        address_parse(a, strlen(a), &ret->address);
        for (size_t i = 0; i < l->n; i++)
                if (l->v[i]->state == LISTENER_ACTIVE)
                        plan_listener(l->v[i], &v[ret->nlisteners++]);
}

struct net_balancer *balancers_plan(struct control *c, const struct object *network, unsigned *ret)
{
        struct collection *l = model_collection(c, network->tenant, &kind_load_balancer);
        struct net_balancer *v = NULL;

        *ret = 0;
        for (size_t i = 0; l && i < l->n; i++) {
                if (!balancer_here(c, l->v[i]) || own_port(l->v[i])->holder != network)
                        continue;
                v = xrealloc(v, *ret + 1, sizeof(*v));
                plan_balancer(c, l->v[i], &v[(*ret)++]);
        }
        return v;
}

void balancers_free(const struct net_balancer *v, unsigned n)
{
        for (unsigned i = 0; i < n; i++) {
                for (unsigned k = 0; k < v[i].nlisteners; k++) {
                        free((void *)v[i].listeners[k].members);
                        free((void *)v[i].listeners[k].pem);
                }
                free((void *)v[i].listeners);
        }
        free((void *)v);
}

/* --- what they have done --------------------------------------------------------------------- */

struct balancer_stats {
        struct balancer_stats *next;
        char id[ID_TEXT_SIZE];
        char *text;
};

void balancer_stats_free(struct balancer_stats *s)
{
        while (s) {
                struct balancer_stats *next = s->next;

                free(s->text);
                free(s);
                s = next;
        }
}

void balancers_look(struct balancer_stats **s, struct network_service *n, const struct net_plan *p)
{
        *s = NULL;
        for (unsigned i = 0; n->ops->balancer && i < p->nnetworks; i++)
                for (unsigned k = 0; k < p->networks[i].nbalancers; k++) {
                        struct balancer_stats *x = xcalloc(1, sizeof(*x));
                        _cleanup_buf_ struct buf text = {};

                        n->ops->balancer(n, &p->networks[i], &p->networks[i].balancers[k], &text);
                        memcpy(x->id, p->networks[i].balancers[k].id, sizeof(x->id));
                        x->text = xstrdup(buf_str(&text));
                        x->next = *s;
                        *s = x;
                }
}

char *balancer_stats_get(const struct balancer_stats *s, const char *id)
{
        while (s && !streq(s->id, id))
                s = s->next;
        return s ? xstrdup(s->text) : NULL;
}
