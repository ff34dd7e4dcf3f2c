/* A tenant's Unix group: made with it, removed with it. */
#include "control/jobs/jobs.h"

#include <ctype.h>
#include <grp.h>

#include "common/child.h"

enum { GROUP_SIZE = 33 }; /* what groupadd takes, and the NUL */

/* "st-" and the tenant's name in the letters that groupadd allows. */
static void group_name(char out[GROUP_SIZE], const char *tenant)
{
        size_t n = snprintf(out, GROUP_SIZE, "st-%s", tenant);

        for (size_t i = 0; i < MIN(n, (size_t)GROUP_SIZE - 1); i++)
                out[i] = isalnum((unsigned char)out[i]) ? tolower((unsigned char)out[i])
                         : out[i] == '_'                ? '_'
                                                        : '-';
}

/* The group with that number as it is now; "" if there is none. */
static void group_of_gid(gid_t gid, char out[GROUP_SIZE])
{
        struct group g, *found = NULL;
        char buf[16384];

        out[0] = '\0';
        if (getgrgid_r(gid, &g, buf, sizeof(buf), &found) == 0 && found)
                snprintf(out, GROUP_SIZE, "%s", found->gr_name);
}

static bool group_name_taken(const char *name)
{
        struct group g, *found = NULL;
        char buf[16384];

        return getgrnam_r(name, &g, buf, sizeof(buf), &found) == 0 && found;
}

static int tenant_facts(struct job *j, gid_t *gid, char name[NAME_SIZE], struct err **e)
{
        struct object *o;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        if (o) {
                *gid = object_num(o, "gid");
                snprintf(name, NAME_SIZE, "%s", o->name);
        }
        control_unlock(j->c);
        return o ? 0 : err_set(e, -ENOENT, "it is gone");
}

static int step_groupadd(struct job *j, struct err **e)
{
        char name[NAME_SIZE], group[GROUP_SIZE], number[16];
        gid_t gid = 0;
        int r = tenant_facts(j, &gid, name, e);

        if (r < 0)
                return r;
        group_of_gid(gid, group);
        if (*group) /* made before a crash, or by an admin on purpose */
                return 0;
        group_name(group, name);
        if (group_name_taken(group))
                snprintf(group, sizeof(group), "st-%u", gid);
        snprintf(number, sizeof(number), "%u", gid);
        return child_check(&(struct child){.argv = (const char *const[]){"groupadd", "-g", number,
                                                                         group, NULL}},
                           e);
}

static int done_create(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        char group[GROUP_SIZE];

        if (!o)
                return 0;
        group_of_gid(object_num(o, "gid"), group);
        txn_set_str(t, o, "group", group);
        txn_set_state(t, o, TENANT_ACTIVE);
        return 0;
}

static void failed(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (o)
                txn_set_state(t, o, TENANT_ERROR);
}

static int step_groupdel(struct job *j, struct err **e)
{
        char name[NAME_SIZE], group[GROUP_SIZE];
        gid_t gid = 0;
        int r = tenant_facts(j, &gid, name, e);

        if (r < 0 || j->c->cfg.uid != 0)
                return r;
        group_of_gid(gid, group);
        if (strncmp(group, "st-", 3) != 0) /* gone, or not of our making */
                return 0;
        return child_check(&(struct child){.argv = (const char *const[]){"groupdel", group, NULL}},
                           e);
}

static int done_delete(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        struct collection *l = o ? model_collection(t->c, o, &kind_job) : NULL;

        while (l && l->n)
                txn_delete(t, l->v[l->n - 1]);
        return job_done_delete(j, t, o, e);
}

static int step_key(struct job *j, struct err **e)
{
        bool ceph = false;
        struct object *o;
        struct facts f;
        int r = job_facts(j, &f, e);

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        if (o)
                ceph = object_num(o, "ceph_key");
        control_unlock(j->c);
        if (r == 0 && ceph)
                r = tenant_revoke_key(j, f.name, e);
        return r < 0 ? r : keys_erase(j->c, f.id, e);
}

static const struct job_step create_steps[] = {{"group", step_groupadd}};
static const struct job_step delete_steps[] = {{"group", step_groupdel}, {"key", step_key}};

const struct job_def job_tenant_create = {.op = "tenant.create",
                                          .deadline = 60,
                                          .steps = create_steps,
                                          .nsteps = ARRAY_SIZE(create_steps),
                                          .done = done_create,
                                          .failed = failed};
const struct job_def job_tenant_delete = {.op = "tenant.delete",
                                          .deadline = 60,
                                          .patient = true,
                                          .steps = delete_steps,
                                          .nsteps = ARRAY_SIZE(delete_steps),
                                          .done = done_delete,
                                          .failed = failed};
