/* This host's record: how it runs guests. */
#include "control/internal.h"

void control_host(struct control *c, char compute[16], char accel[16])
{
        struct object *o;

        control_rdlock(c);
        o = model_by_name(c, NULL, &kind_host, c->cfg.host);
        snprintf(compute, 16, "%s", o ? object_str(o, "compute") : "");
        snprintf(accel, 16, "%s", o ? object_str(o, "accel") : "unknown");
        control_unlock(c);
}

char *control_id(struct control *c, char *out)
{
        control_rdlock(c);
        id_text(out, model_by_no(c, OBJECT_CLOUD)->id);
        control_unlock(c);
        return out;
}

int control_host_set(struct control *c, const char *compute, const char *accel, struct err **e)
{
        struct object *o;
        struct txn t;

        txn_begin(&t, c, NULL);
        o = model_by_name(c, NULL, &kind_host, c->cfg.host);
        if (o && compute)
                txn_set_str(&t, o, "compute", compute);
        if (o && accel)
                txn_set_str(&t, o, "accel", accel);
        return txn_commit(&t, e);
}
