/* Addresses outside that are here: who answers for them, and telling that they are here now.
 *
 * Where the host has a device in an address's own network, hosts and routers there ask for it by
 * ARP: the host answers for it at that device, and says so once, unasked, so that what went to the
 * host where it was before comes here.  Whatever is at that device already is left alone: our
 * answers are written down in <run>/net/answers, also for a daemon after this one.  In a physical
 * network our own device answers for all that is routed behind it; there is only the telling. */
#include "backend/network/linux/linux.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/if_ether.h>
#include <netpacket/packet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/network/linux/netlink.h"
#include "common/fileio.h"

enum { FILE_MAX = 1 << 20 };

static void add(struct answers *v, unsigned index, uint32_t address)
{
        struct answer *p = reallocarray(v->v, v->n + 1, sizeof(*p));

        if (!p)
                return; /* nobody asks for it until the next look */
        v->v = p;
        v->v[v->n++] = (struct answer){index, address};
}

static bool has(const struct answers *v, const struct answer *a)
{
        for (unsigned i = 0; i < v->n; i++)
                if (v->v[i].index == a->index && v->v[i].address == a->address)
                        return true;
        return false;
}

void answers_free(struct answers *v)
{
        free(v->v);
        *v = (struct answers){};
}

/* To all on the device's network: the address is at this MAC.  By the thread's namespace.  Nobody
 * waits for it: who misses it asks when it knows no better. */
static void tell(const struct nl_link *l, uint32_t address)
{
        _cleanup_close_ int fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        struct sockaddr_ll to = {.sll_family = AF_PACKET,
                                 .sll_protocol = htons(ETH_P_ARP),
                                 .sll_ifindex = l->index,
                                 .sll_halen = ETH_ALEN};
        struct ether_arp m = {.ea_hdr = {htons(ARPHRD_ETHER), htons(ETH_P_IP), ETH_ALEN, 4,
                                         htons(ARPOP_REQUEST)}};
        struct nl_ip ip = nl_ip4(address);

        if (fd < 0 || sscanf(l->mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &m.arp_sha[0], &m.arp_sha[1],
                             &m.arp_sha[2], &m.arp_sha[3], &m.arp_sha[4], &m.arp_sha[5]) != 6)
                return;
        memset(to.sll_addr, 0xff, ETH_ALEN);
        memcpy(m.arp_spa, ip.b, 4);
        memcpy(m.arp_tpa, ip.b, 4);
        if (sendto(fd, &m, sizeof(m), 0, (struct sockaddr *)&to, sizeof(to)) < 0)
                return;
}

/* --- on the host ----------------------------------------------------------------------------- */

/* The device whose own network has the address; 0: none. */
static unsigned device_to(const struct nl_list *addresses, uint32_t address)
{
        unsigned index = 0, best = 0;

        for (unsigned i = 0; i < addresses->n; i++) {
                const struct nl_item *x = &addresses->v[i];
                uint32_t a;

                memcpy(&a, x->ip.b, 4);
                if (x->ip.family == AF_INET && x->prefix > best && x->prefix < 32 &&
                    ((ntohl(a) ^ address) & network_mask(x->prefix)) == 0) {
                        index = x->index;
                        best = x->prefix;
                }
        }
        return index;
}

static void want(struct answers *v, const struct nl_list *addresses, uint32_t address)
{
        unsigned index = device_to(addresses, address);

        if (index)
                add(v, index, address);
}

/* What the host routes to namespaces of ours. */
static void wanted(const struct net_plan *p, const struct nl_list *addresses, struct answers *v)
{
        for (unsigned i = 0; i < p->nnetworks; i++) {
                const struct net_network *w = &p->networks[i];

                for (unsigned k = 0; w->uplink && k < w->nfloats; k++)
                        want(v, addresses, w->floats[k].address);
                for (unsigned k = 0; w->uplink && k < w->nbeyond; k++)
                        if (w->beyond[k].here && !network_has(w, w->beyond[k].address))
                                want(v, addresses, w->beyond[k].address);
        }
}

static void recall(struct linux_net *s, const char *path)
{
        _cleanup_free_ char *text = NULL;
        char *rest, *line;
        struct answer a;

        s->recalled = true;
        if (file_read(path, FILE_MAX, &text, NULL, NULL) < 0)
                return;
        rest = text;
        while ((line = strsep(&rest, "\n")))
                if (sscanf(line, "%u %x", &a.index, &a.address) == 2)
                        add(&s->answers, a.index, a.address);
}

static int write_down(const struct answers *v, const char *path, struct err **e)
{
        _cleanup_buf_ struct buf text = {};

        for (unsigned i = 0; i < v->n; i++)
                buf_printf(&text, "%u %x\n", v->v[i].index, v->v[i].address);
        return file_replace(path, buf_str(&text), text.len, 0644, e);
}

static void tell_at(struct nl *n, const struct answer *a)
{
        char name[IF_NAMESIZE];
        struct nl_link l;

        if (if_indextoname(a->index, name) && nl_link(n, name, &l, NULL) == 1)
                tell(&l, a->address);
}

int announce_host(struct linux_net *s, struct nl *n, const struct net_plan *p, struct err **e)
{
        _cleanup_free_ char *path = path_printf("%s/answers", s->dir);
        _cleanup_list_ struct nl_list addresses = {};
        struct answers next = {};
        bool changed = false, first = !s->recalled;
        int r;

        if (!path)
                return err_errno(e, -ENOMEM, "network");
        if (first)
                recall(s, path);
        r = nl_all_addresses(n, &addresses, e);
        if (r == 0)
                wanted(p, &addresses, &next);
        for (unsigned i = 0; r == 0 && i < next.n; i++)
                changed |= !has(&s->answers, &next.v[i]);
        for (unsigned i = 0; r == 0 && i < s->answers.n; i++)
                if (!has(&next, &s->answers.v[i])) {
                        changed = true;
                        nl_proxy(n, false, s->answers.v[i].index, s->answers.v[i].address, NULL);
                }
        if (r == 0 && changed) /* first: what is made and not known would stay */
                r = write_down(&next, path, e);
        for (unsigned i = 0; r == 0 && i < next.n; i++) {
                r = nl_proxy(n, true, next.v[i].index, next.v[i].address, e);
                if (r == 0 && (first || !has(&s->answers, &next.v[i])))
                        tell_at(n, &next.v[i]);
        }
        if (r < 0) {
                answers_free(&next);
                return r;
        }
        answers_free(&s->answers);
        s->answers = next;
        return 0;
}

/* --- in a physical network ------------------------------------------------------------------- */

void announce_inside(const struct net_network *w, struct place *at)
{
        char name[DEVICE_SIZE];
        struct answers next = {};
        struct nl_link l;

        if (nl_link(at->in, network_device(name, NET_PHYSICAL, w->id), &l, NULL) != 1)
                return;
        for (unsigned i = 0; i < w->nports; i++)
                if (w->ports[i].live && !w->ports[i].coming && w->ports[i].address)
                        add(&next, l.index, w->ports[i].address);
        for (unsigned i = 0; i < w->nfloats; i++)
                add(&next, l.index, w->floats[i].address);
        for (unsigned i = 0; i < w->nbeyond; i++)
                if (w->beyond[i].here)
                        add(&next, l.index, w->beyond[i].address);
        for (unsigned i = 0; i < next.n; i++)
                if (!has(&at->known->told, &next.v[i]))
                        tell(&l, next.v[i].address);
        answers_free(&at->known->told);
        at->known->told = next;
}
