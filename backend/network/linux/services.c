/* What a network's namespace serves beside DHCP and DNS, and the addresses of that. */
#include "backend/network/linux/linux.h"

#include "backend/network/linux/netlink.h"
#include "common/log.h"

enum { LOCALHOST = 0x7f000001 };

/* On lo, where dnsmasq does not listen. */
static int addresses(struct nl *in, const struct net_network *w, struct err **e)
{
        _cleanup_list_ struct nl_list l = {};
        struct nl_link lo;
        int r = nl_link(in, "lo", &lo, e);

        if (r < 0)
                return r;
        nl_list_add(&l, &(struct nl_item){lo.index, nl_ip4(LOCALHOST), 8});
        nl_list_add(&l, &(struct nl_item){lo.index, nl_ip4(METADATA_ADDRESS), 32});
        for (unsigned i = 0; i < w->nbalancers; i++)
                nl_list_add(&l, &(struct nl_item){lo.index, nl_ip4(w->balancers[i].address), 32});
        return nl_addresses(in, lo.index, &l, e);
}

/* One that fails leaves guests what they have; its `stats` say it, too. */
static void balance(const struct net_network *w, struct place *at)
{
        _cleanup_err_ struct err *err = NULL;
        int r = balancers_serve(at->dir, w, at->ns, &err);

        if (r < 0 && (!at->known->failure || !streq(at->known->failure, err_msg(err))))
                log_error("network %s: %s", w->id, err_msg(err));
        free(at->known->failure);
        at->known->failure = r < 0 ? strdup(err_msg(err)) : NULL;
}

int services_inside(struct linux_net *s, const struct net_network *w, struct place *at,
                    struct err **e)
{
        int r = addresses(at->in, w, e);

        if (r == 0 && s->metadata)
                r = metadata_serve(s->metadata, at->dir, w, at->ns, e);
        if (r == 0)
                balance(w, at);
        return r;
}
