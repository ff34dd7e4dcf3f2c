/* The config drive: what a guest's cloud-init reads at its first boot, in OpenStack's layout, as an
 * ISO 9660 volume named config-2.  Written anew before each start, from the instance's record. */
#include "control/jobs/config-data.h"
#include "control/jobs/plan.h"

#include "common/child.h"
#include "common/fileio.h"

/* Those that cloud-init and its like ask for; what they hold is the same. */
static const char *const versions[] = {"latest",     "2020-10-14", "2018-08-27", "2017-02-22",
                                       "2016-10-06", "2015-10-15", "2012-08-10"};

/* False: it wants none. */
static bool config_get(struct job *j, struct config_data *ret)
{
        struct object *o;
        bool wanted;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        wanted = o && object_num(o, "config_drive");
        if (wanted)
                config_data_get(j->c, o, ret);
        control_unlock(j->c);
        return wanted;
}

static int put(const char *dir, const char *name, const char *text, struct err **e)
{
        _cleanup_free_ char *path = xcheck(path_printf("%s/%s", dir, name));

        return file_replace(path, text, strlen(text), 0600, e);
}

static int put_json(const char *dir, const char *name, json_t *v, struct err **e)
{
        _cleanup_free_ char *text = xcheck(json_dumps(v, JSON_INDENT(1) | JSON_SORT_KEYS));

        return put(dir, name, text, e);
}

static char *folder(const char *tree, const char *layout, const char *version, int *r,
                    struct err **e)
{
        char *dir = xcheck(path_printf("%s/%s/%s", tree, layout, version));

        if (*r == 0)
                *r = mkdir_parents(dir, 0700, e);
        return dir;
}

static int write_openstack(const char *dir, const struct config_data *d, struct err **e)
{
        json_t *none = json_object();
        int r = put_json(dir, "meta_data.json", d->meta, e);

        if (r == 0)
                r = put_json(dir, "network_data.json", d->network, e);
        if (r == 0)
                r = put_json(dir, "vendor_data.json", d->vendor, e);
        if (r == 0)
                r = put_json(dir, "vendor_data2.json", none, e);
        if (r == 0 && d->user_data)
                r = put(dir, "user_data", d->user_data, e);
        json_decref(none);
        return r;
}

static int write_tree(const char *tree, const struct config_data *d, struct err **e)
{
        _cleanup_free_ char *ec2 = NULL;
        int r = remove_tree(tree, e);

        for (size_t i = 0; r == 0 && i < ARRAY_SIZE(versions); i++) {
                _cleanup_free_ char *dir = folder(tree, "openstack", versions[i], &r, e);

                if (r == 0)
                        r = write_openstack(dir, d, e);
        }
        ec2 = folder(tree, "ec2", "latest", &r, e);
        if (r == 0)
                r = put_json(ec2, "meta-data.json", d->ec2, e);
        if (r == 0 && d->user_data)
                r = put(ec2, "user-data", d->user_data, e);
        return r;
}

int plan_config(struct job *j, struct plan *p, struct err **e)
{
        _cleanup_(config_data_done) struct config_data d = {};
        _cleanup_free_ char *tree = NULL, *made = NULL, *path = NULL;
        int r;

        if (!config_get(j, &d))
                return 0;
        tree = xcheck(path_printf("%s/config", p->dir));
        made = xcheck(path_printf("%s/config.made", p->dir));
        path = xcheck(path_printf("%s/config.iso", p->dir));
        r = write_tree(tree, &d, e);
        if (r == 0) {
                r = child_check(
                        &(struct child){.argv = (const char *const[]){"genisoimage", "-quiet",
                                                                      "-joliet", "-rock",
                                                                      "-input-charset", "utf-8",
                                                                      "-volid", "config-2",
                                                                      "-output", made, tree, NULL}},
                        e);
                if (r < 0)
                        err_prepend(e, r, "config drive");
        }
        if (r == 0)
                r = file_copy(made, path, p->g.uid, p->g.gid, 0400, e);
        remove_tree(tree, NULL);
        unlink(made);
        if (r < 0)
                return r;
        p->config = TAKE_PTR(path);
        p->g.config_drive = p->config;
        return 0;
}
