/* A driver that makes nothing: it keeps the last plan as text. */
#include "backend/network/null/network-null.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"

struct null_net {
        struct network_service base;
        pthread_mutex_t lock;
        char *plan;
};

static void addresses(const struct net_port *p, struct buf *out)
{
        char a[ADDRESS_TEXT_SIZE], six[ADDRESS6_TEXT_SIZE];

        buf_printf(out, "port %s %s", p->name, network_address(a, p->address));
        if (network_some6(&p->address6))
                buf_printf(out, " %s", network_address6(six, &p->address6));
        if (p->live)
                buf_addstr(out, " live");
        if (p->host)
                buf_printf(out, " host=%s", network_address(a, p->host));
        if (p->open)
                buf_addstr(out, " open");
        if (p->rate_in || p->rate_out || p->floor)
                buf_printf(out, " rates=%" PRIu64 ",%" PRIu64 ",%" PRIu64, p->rate_in, p->rate_out,
                           p->floor);
        for (unsigned i = 0; i < p->npairs; i++)
                buf_printf(out, " pair=%s/%u", network_address(a, p->pairs[i].address),
                           p->pairs[i].prefix);
        buf_addc(out, '\n');
}

static void network(const struct net_network *n, struct buf *out)
{
        char a[ADDRESS_TEXT_SIZE], b[ADDRESS_TEXT_SIZE], six[ADDRESS6_TEXT_SIZE];

        buf_printf(out, "network type=%d segment=%u uplink=%d router=%d device=%s\n", n->type,
                   n->segment, n->uplink != 0, n->router, n->device);
        for (unsigned i = 0; i < n->nsubnets; i++) {
                buf_printf(out, "subnet %s/%u gateway=%s dhcp=%d\n",
                           network_address(a, n->subnets[i].address), n->subnets[i].prefix,
                           network_address(b, n->subnets[i].gateway), n->subnets[i].dhcp);
                for (unsigned k = 0; k < n->subnets[i].nroutes; k++)
                        buf_printf(out, "route %s/%u via %s\n",
                                   network_address(a, n->subnets[i].routes[k].address),
                                   n->subnets[i].routes[k].prefix,
                                   network_address(b, n->subnets[i].routes[k].via));
        }
        for (unsigned i = 0; i < n->nsubnets6; i++)
                buf_printf(out, "subnet %s/64 mode=%d\n",
                           network_address6(six, &n->subnets6[i].address), n->subnets6[i].mode);
        for (unsigned i = 0; i < n->nports; i++)
                addresses(&n->ports[i], out);
        for (unsigned i = 0; i < n->ngroups; i++)
                buf_printf(out, "group rules=%u others=%u\n", n->groups[i].nrules,
                           n->groups[i].nothers);
        for (unsigned i = 0; i < n->nfloats; i++)
                buf_printf(out, "float %s %s\n", network_address(a, n->floats[i].address),
                           network_address(b, n->floats[i].port));
        for (unsigned i = 0; i < n->nbeyond; i++)
                buf_printf(out, "beyond %s router=%u\n", network_address(a, n->beyond[i].address),
                           n->beyond[i].router);
}

static void router(const struct net_router *r, struct buf *out)
{
        char a[ADDRESS_TEXT_SIZE], b[ADDRESS_TEXT_SIZE];

        buf_printf(out, "router legs=%u gateway=%d address=%s\n", r->nlegs, r->gateway,
                   network_address(a, r->address));
        for (unsigned i = 0; i < r->nroutes; i++)
                buf_printf(out, "route %s/%u via %s\n", network_address(a, r->routes[i].address),
                           r->routes[i].prefix, network_address(b, r->routes[i].via));
        for (unsigned i = 0; i < r->nforwards; i++) {
                buf_printf(out, "forward %u %s %u", r->forwards[i].proto,
                           network_address(a, r->forwards[i].address), r->forwards[i].port);
                buf_printf(out, " to %s %u\n", network_address(a, r->forwards[i].to),
                           r->forwards[i].to_port);
        }
}

static int apply(struct network_service *base, const struct net_plan *p, struct err **e)
{
        struct null_net *s = (struct null_net *)base;
        struct buf text = {};

        for (unsigned i = 0; i < p->nnetworks; i++)
                network(&p->networks[i], &text);
        for (unsigned i = 0; i < p->nrouters; i++)
                router(&p->routers[i], &text);
        pthread_mutex_lock(&s->lock);
        free(s->plan);
        s->plan = buf_take(&text);
        pthread_mutex_unlock(&s->lock);
        return 0;
}

static unsigned types(struct network_service *s)
{
        return 1u << NET_LOCAL | 1u << NET_FLAT | 1u << NET_VXLAN;
}

/* Each has received one packet. */
static bool count(struct network_service *s, const char *port, struct net_count *ret)
{
        *ret = (struct net_count){.in_bytes = 60, .in_packets = 1};
        return true;
}

static void close_service(struct network_service *base)
{
        struct null_net *s = (struct null_net *)base;

        pthread_mutex_destroy(&s->lock);
        free(s->plan);
        free(s);
}

static const struct network_ops ops = {
        .name = "null", .apply = apply, .types = types, .count = count, .close = close_service};

struct network_service *network_null_new(void)
{
        struct null_net *s = calloc(1, sizeof(*s));

        if (!s)
                return NULL;
        s->base.ops = &ops;
        pthread_mutex_init(&s->lock, NULL);
        return &s->base;
}

char *network_null_plan(struct network_service *base)
{
        struct null_net *s = (struct null_net *)base;
        char *copy;

        pthread_mutex_lock(&s->lock);
        copy = strdup(s->plan ? s->plan : "");
        pthread_mutex_unlock(&s->lock);
        return copy;
}
