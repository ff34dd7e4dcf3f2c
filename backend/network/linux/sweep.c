/* What is ours on the host and not wanted any more. */
#include "backend/network/linux/linux.h"

#include <dirent.h>
#include <unistd.h>

#include "backend/network/linux/netlink.h"
#include "common/fileio.h"

/* Names of devices in order. */
struct names {
        char (*v)[DEVICE_SIZE];
        size_t n;
};

static int by_name(const void *a, const void *b)
{
        return strcmp(a, b);
}

/* The devices that the plan has in the host's namespace; to be freed. */
static int wanted(const struct net_plan *p, struct names *ret)
{
        size_t max = 0;

        for (unsigned i = 0; i < p->nnetworks; i++)
                max += 4 + p->networks[i].nports;
        *ret = (struct names){.v = calloc(max + 1, sizeof(*ret->v))};
        if (!ret->v)
                return -ENOMEM;
        for (unsigned i = 0; i < p->nnetworks; i++) {
                const struct net_network *w = &p->networks[i];

                for (const char *k = "bvup"; *k; k++)
                        if ((*k != NET_UPLINK || w->uplink) &&
                            (*k != NET_PHYSICAL || w->type == NET_VLAN))
                                network_device(ret->v[ret->n++], *k, w->id);
                for (unsigned k = 0; k < w->nports; k++)
                        if (w->ports[k].live)
                                network_device(ret->v[ret->n++], NET_TAP, w->ports[k].id);
        }
        qsort(ret->v, ret->n, sizeof(*ret->v), by_name);
        return 0;
}

/* From what links_look() saw: what was made since is wanted. */
int sweep_links(struct linux_net *s, struct nl *n, const struct net_plan *p, struct err **e)
{
        struct names names;
        int r = wanted(p, &names);

        if (r < 0)
                return err_errno(e, r, "networks");
        for (size_t i = 0; r == 0 && i < s->links.n; i++) {
                const struct nl_link *l = &s->links.v[i];
                struct known_tap *tap;

                if (strncmp(l->name, "sn", 2) != 0 || !streq(l->alias, s->alias))
                        continue;
                if (!bsearch(l->name, names.v, names.n, sizeof(*names.v), by_name))
                        r = nl_del(n, l->index, e);
                else if (l->name[2] == NET_TAP && (tap = tap_get(s, l->name)))
                        tap->count = l->count;
        }
        free(names.v);
        return r;
}

/* --- in namespaces of ours, where every sn device is our own --------------------------------- */

struct inner_sweep {
        const struct net_plan *p;
        const struct net_network *w; /* or */
        const struct net_router *r;
        unsigned index[64], n;
};

static bool leads(const struct inner_sweep *w, const char *name)
{
        char own[DEVICE_SIZE];

        if (w->r) {
                for (unsigned i = 0; i < w->r->nlegs; i++)
                        if (streq(name, network_device(own, NET_ROUTED,
                                                       w->p->networks[w->r->legs[i]].id)))
                                return true;
                return w->r->gateway >= 0 &&
                       streq(name, network_device(own, NET_GATEWAY, w->r->id));
        }
        switch (name[2]) {
        case NET_UPLINK:
                return w->w->uplink;
        case NET_TUNNEL:
                return network_tunnels(w->p, w->w);
        case NET_PHYSICAL:
                return w->w->type == NET_FLAT || w->w->type == NET_VLAN;
        case NET_ROUTED:
                return w->w->router >= 0;
        case NET_GATEWAY:
                for (unsigned i = 0; i < w->p->nrouters; i++)
                        if (w->p->routers[i].gateway >= 0 &&
                            &w->p->networks[w->p->routers[i].gateway] == w->w &&
                            streq(name, network_device(own, NET_GATEWAY, w->p->routers[i].id)))
                                return true;
                return false;
        }
        return true;
}

static int see_inner(void *arg, const struct nl_link *l)
{
        struct inner_sweep *w = arg;

        if (strncmp(l->name, "sn", 2) == 0 && strchr("urgxp", l->name[2]) && !leads(w, l->name) &&
            w->n < ARRAY_SIZE(w->index))
                w->index[w->n++] = l->index;
        return 0;
}

static int inner_sweep(struct nl *in, struct inner_sweep *w, struct err **e)
{
        int r = nl_links(in, see_inner, w, e);

        for (unsigned i = 0; r == 0 && i < w->n; i++)
                r = nl_del(in, w->index[i], e);
        return r;
}

int sweep_inside(struct nl *in, const struct net_plan *p, const struct net_network *n,
                 struct err **e)
{
        return inner_sweep(in, &(struct inner_sweep){.p = p, .w = n}, e);
}

int sweep_router(struct nl *in, const struct net_plan *p, const struct net_router *r,
                 struct err **e)
{
        return inner_sweep(in, &(struct inner_sweep){.p = p, .r = r}, e);
}

void sweep_namespaces(struct linux_net *s, const struct net_plan *p)
{
        DIR *d = opendir(s->dir);

        for (struct dirent *x; d && (x = readdir(d));) {
                bool keep = strlen(x->d_name) != ID_TEXT_SIZE - 1;

                for (unsigned i = 0; i < p->nnetworks && !keep; i++)
                        keep = streq(p->networks[i].id, x->d_name);
                for (unsigned i = 0; i < p->nrouters && !keep; i++)
                        keep = streq(p->routers[i].id, x->d_name);
                if (!keep) {
                        _cleanup_free_ char *dir = path_printf("%s/%s", s->dir, x->d_name);
                        _cleanup_free_ char *file = path_printf("%s/%s/ns", s->dir, x->d_name);

                        if (!dir || !file)
                                continue;
                        dhcp_end(dir);
                        metadata_end(dir);
                        balancers_end(dir, NULL);
                        netns_remove(file);
                        remove_tree(dir, NULL);
                }
        }
        if (d)
                closedir(d);
}
