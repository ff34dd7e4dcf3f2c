/* What guests have used: libvirt's bulk statistics, one call for all of them. */
#include "backend/compute/libvirt/driver.h"

enum {
        WHAT = VIR_DOMAIN_STATS_CPU_TOTAL | VIR_DOMAIN_STATS_BALLOON | VIR_DOMAIN_STATS_VCPU |
               VIR_DOMAIN_STATS_INTERFACE | VIR_DOMAIN_STATS_BLOCK,
        /* One whose monitor is busy is told with what is known without it. */
        HOW = VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT,
};

static uint64_t number(virTypedParameterPtr p)
{
        switch (p->type) {
        case VIR_TYPED_PARAM_INT:
                return (uint64_t)p->value.i;
        case VIR_TYPED_PARAM_UINT:
                return p->value.ui;
        case VIR_TYPED_PARAM_LLONG:
                return (uint64_t)p->value.l;
        case VIR_TYPED_PARAM_ULLONG:
                return p->value.ul;
        default:
                return 0;
        }
}

static const struct {
        const char *name;
        enum guest_figure to;
        uint64_t unit;
} plain[] = {
        {"cpu.time", GUEST_CPU, 1},
        {"vcpu.current", GUEST_VCPUS, 1},
        {"balloon.current", GUEST_MEM_SIZE, 1024},
        {"balloon.rss", GUEST_MEM_RSS, 1024},
        {"balloon.available", GUEST_MEM_TOTAL, 1024},
        {"balloon.unused", GUEST_MEM_FREE, 1024},
        {"balloon.usable", GUEST_MEM_USABLE, 1024},
};

/* What of a device, and to which sum it is added; GUEST_FIGURES: to none. */
static const struct field {
        const char *name;
        size_t at;
        enum guest_figure sum;
} block[] =
        {
                {"rd.reqs", offsetof(struct guest_device, rd_ops), GUEST_RD_OPS},
                {"rd.bytes", offsetof(struct guest_device, rd_bytes), GUEST_RD_BYTES},
                {"wr.reqs", offsetof(struct guest_device, wr_ops), GUEST_WR_OPS},
                {"wr.bytes", offsetof(struct guest_device, wr_bytes), GUEST_WR_BYTES},
                {"fl.reqs", offsetof(struct guest_device, flushes), GUEST_FIGURES},
},
  net[] = {
          {"rx.pkts", offsetof(struct guest_device, rd_ops), GUEST_RX_PACKETS},
          {"rx.bytes", offsetof(struct guest_device, rd_bytes), GUEST_RX_BYTES},
          {"tx.pkts", offsetof(struct guest_device, wr_ops), GUEST_TX_PACKETS},
          {"tx.bytes", offsetof(struct guest_device, wr_bytes), GUEST_TX_BYTES},
};

/* "block.3.rd.reqs": into v[3] of room devices. */
static void device(struct guest_stats *s, struct guest_device *v, unsigned room, unsigned *n,
                   const struct field *f, size_t nf, virTypedParameterPtr p, const char *rest)
{
        char *end;
        unsigned long i = strtoul(rest, &end, 10);

        if (end == rest || *end != '.' || i >= room)
                return;
        *n = MAX(*n, (unsigned)i + 1);
        if (streq(end + 1, "name") && p->type == VIR_TYPED_PARAM_STRING)
                snprintf(v[i].name, sizeof(v[i].name), "%s", p->value.s);
        for (; nf > 0; f++, nf--)
                if (streq(end + 1, f->name)) {
                        uint64_t x = number(p);

                        memcpy((char *)&v[i] + f->at, &x, sizeof(x));
                        if (f->sum < GUEST_FIGURES)
                                s->all[f->sum] += x;
                }
}

static void take(struct guest_stats *s, virTypedParameterPtr p)
{
        if (!strncmp(p->field, "block.", 6))
                device(s, s->disk, ARRAY_SIZE(s->disk), &s->ndisks, block, ARRAY_SIZE(block), p,
                       p->field + 6);
        else if (!strncmp(p->field, "net.", 4))
                device(s, s->nic, ARRAY_SIZE(s->nic), &s->nnics, net, ARRAY_SIZE(net), p,
                       p->field + 4);
        for (size_t i = 0; i < ARRAY_SIZE(plain); i++)
                if (streq(p->field, plain[i].name))
                        s->all[plain[i].to] = number(p) * plain[i].unit;
}

int op_stats(struct compute *c,
             void (*each)(void *arg, const char *uuid, const struct guest_stats *s), void *arg,
             struct err **e)
{
        struct driver *d = driver(c);
        _cleanup_conn_ virConnectPtr conn = link_get(d, e);
        virDomainStatsRecordPtr *list = NULL;
        char uuid[VIR_UUID_STRING_BUFLEN];
        int n;

        if (!conn)
                return -ECONNREFUSED;
        reaper_busy(d->reaper, +1); /* the first one probes every emulator, with a guest locked */
        n = virConnectGetAllDomainStats(conn, WHAT, &list, HOW);
        reaper_busy(d->reaper, -1);
        if (n < 0)
                return virt_error(conn, e);
        for (int i = 0; i < n; i++) {
                struct guest_stats s = {0};

                for (int k = 0; k < list[i]->nparams; k++)
                        take(&s, &list[i]->params[k]);
                if (virDomainGetUUIDString(list[i]->dom, uuid) == 0)
                        each(arg, uuid, &s);
        }
        virDomainStatsRecordListFree(list);
        return 0;
}
