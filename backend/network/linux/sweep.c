/* What is ours on the host and not wanted any more. */
#include "backend/network/linux/linux.h"

#include <dirent.h>
#include <unistd.h>

#include "backend/network/linux/netlink.h"
#include "common/fileio.h"

struct sweep {
        struct linux_net *s;
        const struct net_plan *p;
        unsigned index[256], n;
};

static bool wanted(const struct net_plan *p, const char *name)
{
        char own[DEVICE_SIZE];

        for (unsigned i = 0; i < p->nnetworks; i++) {
                const struct net_network *w = &p->networks[i];

                for (const char *k = "bvu"; *k; k++)
                        if ((*k != NET_UPLINK || w->uplink) &&
                            streq(name, network_device(own, *k, w->id)))
                                return true;
                for (unsigned k = 0; k < w->nports; k++)
                        if (w->ports[k].live &&
                            streq(name, network_device(own, NET_TAP, w->ports[k].id)))
                                return true;
        }
        return false;
}

static int see(void *arg, const struct nl_link *l)
{
        struct sweep *w = arg;

        if (strncmp(l->name, "sn", 2) == 0 && streq(l->alias, w->s->alias) &&
            !wanted(w->p, l->name) && w->n < ARRAY_SIZE(w->index))
                w->index[w->n++] = l->index;
        return 0;
}

int sweep_links(struct linux_net *s, struct nl *n, const struct net_plan *p, struct err **e)
{
        struct sweep w;
        int r = 0;

        do {
                w = (struct sweep){.s = s, .p = p};
                r = nl_links(n, see, &w, e);
                for (unsigned i = 0; r == 0 && i < w.n; i++)
                        r = nl_del(n, w.index[i], e);
        } while (r == 0 && w.n == ARRAY_SIZE(w.index));
        return r;
}

void sweep_namespaces(struct linux_net *s, const struct net_plan *p)
{
        DIR *d = opendir(s->dir);

        for (struct dirent *x; d && (x = readdir(d));) {
                bool keep = strlen(x->d_name) != ID_TEXT_SIZE - 1;

                for (unsigned i = 0; i < p->nnetworks && !keep; i++)
                        keep = streq(p->networks[i].id, x->d_name);
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
