/* The engine behind fault points: see control/driver/faulty.h. */
#include "backend/compute/compute.h"

#include "control/driver/faulty.h"

struct faulty {
        struct compute driver;
        struct compute_ops ops;
        struct compute *real;
};

static struct compute *real(struct compute *s)
{
        return ((struct faulty *)s)->real;
}

static int op_start(struct compute *faulty, const struct guest *g, struct err **e)
{
        FAULTY(faulty, "compute", start, g, e);
}

static int op_shutdown(struct compute *faulty, const char *uuid, struct err **e)
{
        FAULTY(faulty, "compute", shutdown, uuid, e);
}

static int op_destroy(struct compute *faulty, const char *uuid, struct err **e)
{
        FAULTY(faulty, "compute", destroy, uuid, e);
}

static int op_reboot(struct compute *faulty, const char *uuid, bool hard, struct err **e)
{
        FAULTY(faulty, "compute", reboot, uuid, hard, e);
}

static int op_pause(struct compute *faulty, const char *uuid, struct err **e)
{
        FAULTY(faulty, "compute", pause, uuid, e);
}

static int op_resume(struct compute *faulty, const char *uuid, struct err **e)
{
        FAULTY(faulty, "compute", resume, uuid, e);
}

static int op_save(struct compute *faulty, const char *uuid, const char *path,
                   const struct compute_watch *w, struct err **e)
{
        FAULTY(faulty, "compute", save, uuid, path, w, e);
}

static int op_saved(struct compute *faulty, const char *path, struct err **e)
{
        FAULTY(faulty, "compute", saved, path, e);
}

static int op_restore(struct compute *faulty, const char *uuid, const char *path, struct err **e)
{
        FAULTY(faulty, "compute", restore, uuid, path, e);
}

static int op_keys(struct compute *faulty, const char *uuid, const char *keys, struct err **e)
{
        FAULTY(faulty, "compute", keys, uuid, keys, e);
}

static int op_set_vcpus(struct compute *faulty, const char *uuid, unsigned vcpus, struct err **e)
{
        FAULTY(faulty, "compute", set_vcpus, uuid, vcpus, e);
}

static int op_set_memory(struct compute *faulty, const char *uuid, uint64_t bytes, struct err **e)
{
        FAULTY(faulty, "compute", set_memory, uuid, bytes, e);
}

static int op_media(struct compute *faulty, const char *uuid, const struct guest_disk *d,
                    struct err **e)
{
        FAULTY(faulty, "compute", media, uuid, d, e);
}

static int op_screen(struct compute *faulty, const char *uuid, const char *password, int64_t until,
                     struct err **e)
{
        FAULTY(faulty, "compute", screen, uuid, password, until, e);
}

static int op_stats(struct compute *faulty,
                    void (*each)(void *arg, const char *uuid, const struct guest_stats *s),
                    void *arg, struct err **e)
{
        FAULTY_GET(faulty, "compute", stats, each, arg, e);
}

static int op_nmi(struct compute *faulty, const char *uuid, struct err **e)
{
        FAULTY(faulty, "compute", nmi, uuid, e);
}

static int op_password(struct compute *faulty, const char *uuid, const char *user, const char *hash,
                       struct err **e)
{
        FAULTY(faulty, "compute", password, uuid, user, hash, e);
}

static int op_describe(struct compute *faulty, const char *uuid, char **ret, struct err **e)
{
        FAULTY_GET(faulty, "compute", describe, uuid, ret, e);
}

static int op_freeze(struct compute *faulty, const char *uuid, struct err **e)
{
        FAULTY(faulty, "compute", freeze, uuid, e);
}

static int op_thaw(struct compute *faulty, const char *uuid, struct err **e)
{
        FAULTY(faulty, "compute", thaw, uuid, e);
}

static int op_attach(struct compute *faulty, const char *uuid, const struct guest_disk *d,
                     struct err **e)
{
        FAULTY(faulty, "compute", attach, uuid, d, e);
}

static int op_detach(struct compute *faulty, const char *uuid, const char *target, int timeout_ms,
                     struct err **e)
{
        FAULTY(faulty, "compute", detach, uuid, target, timeout_ms, e);
}

static int op_plug(struct compute *faulty, const char *uuid, const struct guest_nic *n,
                   struct err **e)
{
        FAULTY(faulty, "compute", plug, uuid, n, e);
}

static int op_unplug(struct compute *faulty, const char *uuid, const char *mac, int timeout_ms,
                     struct err **e)
{
        FAULTY(faulty, "compute", unplug, uuid, mac, timeout_ms, e);
}

static int op_grow(struct compute *faulty, const char *uuid, const char *target, uint64_t size,
                   struct err **e)
{
        FAULTY(faulty, "compute", grow, uuid, target, size, e);
}

static int op_state(struct compute *faulty, const char *uuid, enum guest_state *ret, struct err **e)
{
        FAULTY_GET(faulty, "compute", state, uuid, ret, e);
}

static int op_list(struct compute *faulty,
                   int (*each)(void *arg, const char *uuid, enum guest_state s), void *arg,
                   struct err **e)
{
        FAULTY_GET(faulty, "compute", list, each, arg, e);
}

static int op_adopt(struct compute *faulty, const char *name, struct guest_found *ret,
                    struct err **e)
{
        FAULTY_GET(faulty, "compute", adopt, name, ret, e);
}

static int op_release(struct compute *faulty, const char *uuid, struct err **e)
{
        FAULTY(faulty, "compute", release, uuid, e);
}

static int op_migrate(struct compute *faulty, const char *uuid, const struct guest_move *m,
                      struct err **e)
{
        FAULTY(faulty, "compute", migrate, uuid, m, e);
}

static int op_warm(struct compute *faulty, struct err **e)
{
        FAULTY(faulty, "compute", warm, e);
}

static void op_close(struct compute *faulty)
{
        real(faulty)->ops->close(real(faulty));
        free(faulty);
}

static void op_settle(struct compute *faulty, const char *uuid, const char *target)
{
        (void)FAULT("ask.compute.settle");
        real(faulty)->ops->settle(real(faulty), uuid, target);
        (void)FAULT("did.compute.settle");
}

struct compute *compute_faulty(struct compute *to)
{
        struct faulty *f = calloc(1, sizeof(*f));

        if (!f)
                return to;
        f->driver.ops = &f->ops;
        f->ops.name = to->ops->name; /* what is forgotten below is missing, not another driver's */
        f->real = to;
        FAULTY_PUT(f, start);
        FAULTY_PUT(f, shutdown);
        FAULTY_PUT(f, destroy);
        FAULTY_PUT(f, reboot);
        FAULTY_PUT(f, pause);
        FAULTY_PUT(f, resume);
        FAULTY_PUT(f, save);
        FAULTY_PUT(f, saved);
        FAULTY_PUT(f, restore);
        FAULTY_PUT(f, keys);
        FAULTY_PUT(f, set_vcpus);
        FAULTY_PUT(f, set_memory);
        FAULTY_PUT(f, media);
        FAULTY_PUT(f, screen);
        FAULTY_PUT(f, stats);
        FAULTY_PUT(f, nmi);
        FAULTY_PUT(f, password);
        FAULTY_PUT(f, describe);
        FAULTY_PUT(f, freeze);
        FAULTY_PUT(f, thaw);
        FAULTY_PUT(f, attach);
        FAULTY_PUT(f, detach);
        FAULTY_PUT(f, plug);
        FAULTY_PUT(f, unplug);
        FAULTY_PUT(f, grow);
        FAULTY_PUT(f, state);
        FAULTY_PUT(f, list);
        FAULTY_PUT(f, adopt);
        FAULTY_PUT(f, release);
        FAULTY_PUT(f, migrate);
        FAULTY_PUT(f, warm);
        FAULTY_PUT(f, settle);
        f->ops.close = op_close;
        return &f->driver;
}
