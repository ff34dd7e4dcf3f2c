/* Devices: what there is; there, of the right kind, ours, up. */
#include "backend/network/linux/linux.h"

#include "backend/network/linux/netlink.h"

static int by_name(const void *a, const void *b)
{
        return strcmp(((const struct nl_link *)a)->name, ((const struct nl_link *)b)->name);
}

static int keep(void *arg, const struct nl_link *l)
{
        struct links *all = arg;
        struct nl_link *v = all->v;

        if (strncmp(l->name, "sn", 2) != 0)
                return 0;
        if (all->n % 64 == 0)
                v = reallocarray(v, all->n + 64, sizeof(*v));
        if (!v)
                return -ENOMEM;
        all->v = v;
        v[all->n++] = *l;
        return 0;
}

int links_look(struct links *l, struct nl *n, struct err **e)
{
        int r;

        l->n = 0;
        free(l->v);
        l->v = NULL;
        r = nl_links(n, keep, l, e);
        if (l->n)
                qsort(l->v, l->n, sizeof(*l->v), by_name);
        return r;
}

const struct nl_link *links_get(const struct links *l, const char *name)
{
        struct nl_link key;

        snprintf(key.name, sizeof(key.name), "%s", name);
        return l->n ? bsearch(&key, l->v, l->n, sizeof(key), by_name) : NULL;
}

int device_quiet(const char *device, struct err **e)
{
        return netns_set("ipv6/conf/%/disable_ipv6", device, "1", e);
}

int device_ensure(struct nl *n, const char *name, const char *kind, struct nl_link *l,
                  struct err **e)
{
        int r = nl_link(n, name, l, e);

        if (r == 1 && !streq(l->kind, kind)) {
                r = nl_del(n, l->index, e);
                return r < 0 ? r : 0;
        }
        return r;
}

int device_settle(struct linux_net *s, struct nl *n, const struct nl_link *l, unsigned master,
                  unsigned mtu, struct err **e)
{
        if (l->up && (!master || l->master == master) && (!mtu || l->mtu == mtu) &&
            streq(l->alias, s->alias))
                return 0;
        return nl_set(n, l->index, master, mtu, NULL, s->alias, e);
}

int device_leg(struct linux_net *s, struct nl *n, struct nl *in, int ns, const char *name,
               const char *inside, struct nl_link *here, struct nl_link *there, struct err **e)
{
        int a = device_ensure(n, name, "veth", here, e),
            b = a < 0 ? a : nl_link(in, inside, there, e), r = b;

        if (r >= 0 && (!a || !b)) { /* half a cable is none: its other end is in a lost namespace */
                r = a ? nl_del(n, here->index, e) : 0;
                if (r == 0 && b)
                        r = nl_del(in, there->index, e);
                if (r == 0)
                        r = nl_add_veth(n, name, s->alias, inside, ns, e);
                if (r == 0)
                        r = device_quiet(name, e);
                if (r == 0)
                        r = nl_link(n, name, here, e);
                if (r >= 0)
                        r = nl_link(in, inside, there, e);
        }
        return r < 0 ? r : 0;
}

int device_routes(const char *device, bool six, struct err **e)
{
        static const char *const four[][2] = {{"ipv4/conf/%/send_redirects", "0"},
                                              {"ipv4/conf/all/send_redirects", "0"},
                                              {"ipv4/conf/all/rp_filter", "0"},
                                              {"ipv4/conf/%/rp_filter", "0"},
                                              {"ipv4/ip_forward", "1"}};
        static const char *const of_six[][2] = {{"ipv6/conf/%/accept_dad", "0"},
                                                {"ipv6/conf/%/accept_ra", "0"},
                                                {"ipv6/conf/%/disable_ipv6", "0"},
                                                {"ipv6/conf/all/forwarding", "1"}};
        int r = 0;

        for (unsigned i = 0; r == 0 && i < ARRAY_SIZE(four); i++)
                r = netns_set(four[i][0], device, four[i][1], e);
        for (unsigned i = 0; six && r == 0 && i < ARRAY_SIZE(of_six); i++)
                r = netns_set(of_six[i][0], device, of_six[i][1], e);
        return r == 0 && !six ? device_quiet(device, e) : r;
}
