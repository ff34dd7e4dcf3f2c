/* Numbers of networks: what their ways out and those who serve them are told apart by on a host.
 *
 * Two hosts make networks of two tenants at the same instant, and no transaction of theirs meets
 * the other's.  So each host gives away numbers of blocks that are its own: they are in its record,
 * and records of hosts are of one scope, where of two that take a block at once one is decided
 * again. */
#include "control/hosts.h"
#include "control/network.h"

enum {
        FIRST = 256,
        END = 65280,
        BLOCK = 128,
        BLOCKS = (END - FIRST) / BLOCK,
        LOW = 64, /* so few left: it takes another block */
        METADATA = 169 << 8 | 254
};

/* Adds those of the host's record. */
static void read_blocks(const struct object *host, bool v[BLOCKS])
{
        const char *p = object_str(host, "blocks");
        char *end;

        for (unsigned long n; (n = strtoul(p, &end, 10), end != p); p = end)
                if (n < BLOCKS)
                        v[n] = true;
}

/* Numbers that networks have, wherever they were made. */
static void read_used(struct control *c, bool v[END])
{
        struct object *o, *tmp;

        v[METADATA] = true; /* 169.254.169.254 is the metadata service's */
        HASH_ITER (hh_no, c->by_no, o, tmp)
                if (o->kind == &kind_network && object_num(o, "uplink") < END)
                        v[object_num(o, "uplink")] = true;
}

/* Of the host's own blocks, or without others of all; the first, 0: there is none.  *left: how
 * many. */
static uint16_t find(struct control *c, const struct object *host, unsigned *left)
{
        bool *used = xcalloc(END, sizeof(*used)), own[BLOCKS] = {};
        unsigned first = 0;

        *left = 0;
        if (host)
                read_blocks(host, own);
        read_used(c, used);
        for (unsigned n = FIRST; n < END; n++)
                if (!used[n] && (!feed_shared(c) || own[(n - FIRST) / BLOCK])) {
                        first = first ?: n;
                        ++*left;
                }
        free(used);
        return first;
}

uint16_t network_number(struct control *c)
{
        unsigned left;

        return find(c, host_find(c, c->cfg.host), &left);
}

void network_numbers_take(struct txn *t, struct object *host)
{
        _cleanup_buf_ struct buf all = {};
        bool taken[BLOCKS] = {};
        struct object *o, *tmp;
        unsigned left, n;

        if (!feed_shared(t->c) || !t->c->cfg.network || !streq(host->name, t->c->cfg.host))
                return;
        find(t->c, host, &left);
        if (left >= LOW)
                return;
        HASH_ITER (hh_no, t->c->by_no, o, tmp)
                if (o->kind == &kind_host)
                        read_blocks(o, taken);
        for (n = 0; n < BLOCKS && taken[n]; n++)
                ;
        if (n == BLOCKS)
                return;
        buf_printf(&all, "%s%u ", object_str(host, "blocks"), n);
        txn_set_str(t, host, "blocks", buf_str(&all));
}

static int top_up(struct control *c)
{
        struct object *host;
        struct txn t;

        txn_begin(&t, c, NULL);
        host = host_find(c, c->cfg.host);
        if (host)
                network_numbers_take(&t, host);
        return txn_commit(&t, NULL);
}

void network_numbers_keep(struct control *c)
{
        unsigned left;

        if (!feed_shared(c))
                return;
        control_rdlock(c);
        find(c, host_find(c, c->cfg.host), &left);
        control_unlock(c);
        if (left < LOW)
                AGAIN(c, NULL, top_up(c));
}
