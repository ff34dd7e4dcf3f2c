/* The backups behind fault points: see control/driver/faulty.h. */
#include "backend/backup/backup.h"

#include "control/driver/faulty.h"

struct faulty {
        struct backup_service driver;
        struct backup_service_ops ops;
        struct backup_service *real;
};

static struct backup_service *real(struct backup_service *s)
{
        return ((struct faulty *)s)->real;
}

static int op_check(struct backup_service *faulty, const char *target, bool make, struct err **e)
{
        FAULTY(faulty, "backup", check, target, make, e);
}

static int op_create(struct backup_service *faulty, const char *target,
                     const struct backup_request *q, const struct backup_progress *p,
                     struct backup_facts *ret, struct err **e)
{
        FAULTY_GET(faulty, "backup", create, target, q, p, ret, e);
}

static int op_stat(struct backup_service *faulty, const char *target, const char *id,
                   struct backup_facts *ret, struct err **e)
{
        FAULTY_GET(faulty, "backup", stat, target, id, ret, e);
}

static int op_restore(struct backup_service *faulty, const char *target, const char *id,
                      const char *socket, const char *volume, bool blank,
                      const struct backup_progress *p, struct err **e)
{
        FAULTY(faulty, "backup", restore, target, id, socket, volume, blank, p, e);
}

static int op_verify(struct backup_service *faulty, const char *target, const char *id,
                     const struct backup_progress *p, struct err **e)
{
        FAULTY(faulty, "backup", verify, target, id, p, e);
}

static int op_remove(struct backup_service *faulty, const char *target, const char *id,
                     struct err **e)
{
        FAULTY(faulty, "backup", remove, target, id, e);
}

static int op_sweep(struct backup_service *faulty, const char *target, struct err **e)
{
        FAULTY(faulty, "backup", sweep, target, e);
}

static void op_close(struct backup_service *faulty)
{
        real(faulty)->ops->close(real(faulty));
        free(faulty);
}

struct backup_service *backup_faulty(struct backup_service *to)
{
        struct faulty *f = calloc(1, sizeof(*f));

        if (!f)
                return to;
        f->driver.ops = &f->ops;
        f->ops.name = to->ops->name; /* what is forgotten below is missing, not another driver's */
        f->real = to;
        FAULTY_PUT(f, check);
        FAULTY_PUT(f, create);
        FAULTY_PUT(f, stat);
        FAULTY_PUT(f, restore);
        FAULTY_PUT(f, verify);
        FAULTY_PUT(f, remove);
        FAULTY_PUT(f, sweep);
        f->ops.close = op_close;
        return &f->driver;
}
