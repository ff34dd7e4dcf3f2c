/* The networks behind fault points: see control/driver/faulty.h. */
#include "backend/network/linux/network-linux.h"

#include "control/driver/faulty.h"

struct faulty {
        struct network_service driver;
        struct network_ops ops;
        struct network_service *real;
};

static struct network_service *real(struct network_service *s)
{
        return ((struct faulty *)s)->real;
}

static int op_apply(struct network_service *faulty, const struct net_plan *p, struct err **e)
{
        FAULTY(faulty, "network", apply, p, e);
}

static void op_passwords(struct network_service *faulty, const struct net_plan *p,
                         int (*posted)(void *arg, const struct net_port *port, const char *text),
                         void *arg)
{
        real(faulty)->ops->passwords(real(faulty), p, posted, arg);
}

static void op_balancer(struct network_service *faulty, const struct net_network *n,
                        const struct net_balancer *b, struct buf *out)
{
        real(faulty)->ops->balancer(real(faulty), n, b, out);
}

static unsigned op_types(struct network_service *faulty)
{
        return real(faulty)->ops->types(real(faulty));
}

static bool op_count(struct network_service *faulty, const char *port, struct net_count *ret)
{
        return real(faulty)->ops->count(real(faulty), port, ret);
}

static void op_close(struct network_service *faulty)
{
        real(faulty)->ops->close(real(faulty));
        free(faulty);
}

struct network_service *network_faulty(struct network_service *to)
{
        struct faulty *f = calloc(1, sizeof(*f));

        if (!f)
                return to;
        f->driver.ops = &f->ops;
        f->ops.name = to->ops->name; /* what is forgotten below is missing, not another driver's */
        f->real = to;
        FAULTY_PUT(f, apply);
        FAULTY_PUT(f, passwords);
        FAULTY_PUT(f, balancer);
        FAULTY_PUT(f, types);
        FAULTY_PUT(f, count);
        f->ops.close = op_close;
        return &f->driver;
}
