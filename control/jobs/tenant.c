/* A tenant's Unix group: made with it, removed with it.  Of several hosts each has it: a file in
 * <state>/groups, named after its number, says that it was made there. */
#include "control/jobs/jobs.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>

#include "common/child.h"
#include "common/fileio.h"

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

static int mark(struct control *c, gid_t gid, struct err **e)
{
        _cleanup_free_ char *path = xcheck(path_printf("%s/groups/%u", c->cfg.state, gid));
        _cleanup_free_ char *dir = xcheck(path_printf("%s/groups", c->cfg.state));
        _cleanup_close_ int fd = -1;
        int r = mkdir_parents(dir, 0700, e);

        if (r < 0)
                return r;
        fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        return fd < 0 ? err_errno(e, -errno, "create '%s'", path) : 0;
}

static int add_group(struct control *c, gid_t gid, const char *tenant, struct err **e)
{
        char group[GROUP_SIZE], number[16];
        int r = 0;

        group_of_gid(gid, group);
        if (*group) /* made before a crash, or by an admin on purpose */
                return 0;
        group_name(group, tenant);
        if (group_name_taken(group))
                snprintf(group, sizeof(group), "st-%u", gid);
        snprintf(number, sizeof(number), "%u", gid);
        if (feed_shared(c))
                r = mark(c, gid, e);
        return r < 0 ? r
                     : child_check(
                               &(struct child){.argv = (const char *const[]){"groupadd", "-g",
                                                                             number, group, NULL}},
                               e);
}

static int drop_group(gid_t gid, struct err **e)
{
        char group[GROUP_SIZE];

        group_of_gid(gid, group);
        if (strncmp(group, "st-", 3) != 0) /* gone, or not of our making */
                return 0;
        return child_check(&(struct child){.argv = (const char *const[]){"groupdel", group, NULL}},
                           e);
}

static int step_groupadd(struct job *j, struct err **e)
{
        char name[NAME_SIZE];
        gid_t gid = 0;
        int r = tenant_facts(j, &gid, name, e);

        return r < 0 ? r : add_group(j->c, gid, name, e);
}

/* --- of tenants that other hosts made, or removed ----------------------------------------------
 */

struct known {
        gid_t gid;
        char name[NAME_SIZE];
        bool active;
};

/* All tenants; the caller frees. */
static struct known *tenants(struct control *c, size_t *ret_n)
{
        struct collection *l;
        struct known *v;

        control_rdlock(c);
        l = model_collection(c, model_by_no(c, OBJECT_CLOUD), &kind_tenant);
        *ret_n = l ? l->n : 0;
        v = xcalloc(*ret_n + 1, sizeof(*v));
        for (size_t i = 0; i < *ret_n; i++) {
                v[i].gid = object_num(l->v[i], "gid");
                v[i].active = l->v[i]->state == TENANT_ACTIVE;
                snprintf(v[i].name, NAME_SIZE, "%s", l->v[i]->name);
        }
        control_unlock(c);
        return v;
}

static bool is_known(const struct known *v, size_t n, gid_t gid)
{
        for (size_t i = 0; i < n; i++)
                if (v[i].gid == gid)
                        return true;
        return false;
}

static void drop_others(struct control *c, const struct known *v, size_t n)
{
        _cleanup_free_ char *dir = xcheck(path_printf("%s/groups", c->cfg.state));
        struct dirent *de;
        DIR *d = opendir(dir);

        while (d && (de = readdir(d))) {
                _cleanup_free_ char *path = xcheck(path_printf("%s/%s", dir, de->d_name));
                _cleanup_err_ struct err *err = NULL;
                gid_t gid = strtoul(de->d_name, NULL, 10);

                if (!gid || is_known(v, n, gid))
                        continue;
                if (drop_group(gid, &err) < 0)
                        log_warning("group %u: %s", gid, err_msg(err));
                unlink(path);
        }
        if (d)
                closedir(d);
}

void tenant_groups(struct control *c)
{
        struct known *v;
        size_t n;

        if (c->cfg.uid != 0)
                return;
        v = tenants(c, &n);
        for (size_t i = 0; i < n; i++) {
                _cleanup_err_ struct err *err = NULL;

                if (v[i].active && v[i].gid && add_group(c, v[i].gid, v[i].name, &err) < 0)
                        log_warning("group of tenant '%s': %s", v[i].name, err_msg(err));
        }
        drop_others(c, v, n);
        free(v);
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
        char name[NAME_SIZE];
        gid_t gid = 0;
        int r = tenant_facts(j, &gid, name, e);

        return r < 0 || j->c->cfg.uid != 0 ? r : drop_group(gid, e);
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
        struct facts f;
        int r = job_facts(j, &f, e);

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
                                          .steps = delete_steps,
                                          .nsteps = ARRAY_SIZE(delete_steps),
                                          .done = done_delete,
                                          .failed = failed};
