/* The config drive: what a guest's cloud-init reads at its first boot, in OpenStack's layout, as an
 * ISO 9660 volume named config-2.  Written anew before each start, from the instance's record. */
#include "control/documents.h"
#include "control/jobs/plan.h"

#include "common/bundle.h"
#include "common/child.h"
#include "common/fileio.h"

/* Those that cloud-init and its like ask for; what they hold is the same. */
static const char *const versions[] = {"latest",     "2020-10-14", "2018-08-27", "2017-02-22",
                                       "2016-10-06", "2015-10-15", "2012-08-10"};

/* The documents; false: it wants no config drive. */
static bool config_get(struct job *j, struct buf *ret)
{
        struct object *o;
        bool wanted;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        wanted = o && object_num(o, "config_drive");
        if (wanted)
                documents_drive(j->c, o, ret);
        control_unlock(j->c);
        return wanted;
}

/* open: to all who get there. */
static int write_file(const char *dir, const char *name, const struct bundle_item *x, bool open,
                      struct err **e)
{
        _cleanup_free_ char *path = xcheck(path_printf("%s/%s", dir, name));
        int r = mkdir_parents(dir, open ? 0755 : 0700, e);

        return r < 0 ? r : file_replace(path, x->data, x->len, open ? 0644 : 0600, e);
}

/* "LAYOUT/latest/NAME", of OpenStack's layout in each version. */
static int write_item(const char *tree, const struct bundle_item *x, bool open, struct err **e)
{
        _cleanup_free_ char *name = xcheck(xstrndup(x->name, x->name_len));
        char *file = strrchr(name, '/'), *version = strchr(name, '/');
        bool openstack;
        int r = 0;

        *file++ = '\0';
        *version = '\0';
        openstack = streq(name, "openstack");
        for (size_t i = 0; r == 0 && i < (openstack ? ARRAY_SIZE(versions) : 1); i++) {
                _cleanup_free_ char *dir = xcheck(path_printf("%s/%s/%s", tree, name, versions[i]));

                r = write_file(dir, file, x, open, e);
        }
        return r;
}

static int write_tree(const char *tree, const struct buf *text, bool open, struct err **e)
{
        const char *p = buf_str(text), *end = p + text->len;
        int r = remove_tree(tree, e);
        struct bundle_item x;

        while (r == 0 && bundle_next(&p, end, &x))
                r = write_item(tree, &x, open, e);
        return r;
}

int plan_config(struct job *j, struct plan *p, struct err **e)
{
        _cleanup_buf_ struct buf text = {};
        _cleanup_free_ char *tree = NULL, *made = NULL, *path = NULL;
        int r;

        if (!config_get(j, &text))
                return 0;
        if (p->container) {
                p->config = xcheck(path_printf("%s/config", p->tree));
                p->g.config_dir = p->config;
                return write_tree(p->config, &text, true, e);
        }
        tree = xcheck(path_printf("%s/config", p->dir));
        made = xcheck(path_printf("%s/config.made", p->dir));
        path = xcheck(path_printf("%s/config.iso", p->dir));
        r = write_tree(tree, &text, false, e);
        if (r == 0) /* nobody else reads along: the program keeps the file that is there */
                r = file_replace(made, "", 0, 0600, e);
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
