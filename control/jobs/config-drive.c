/* The config drive: what a guest's cloud-init reads at its first boot, in OpenStack's layout, as an
 * ISO 9660 volume named config-2.  Written anew before each start, from the instance's record. */
#include "control/documents.h"
#include "control/jobs/plan.h"

#include "common/bundle.h"
#include "common/child.h"
#include "common/fileio.h"

static const char *const versions[] = {"latest", "2018-08-27"};

/* The documents; false: it wants no config drive. */
static bool config_get(struct job *j, struct buf *ret)
{
        struct object *o;
        bool wanted;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        wanted = o && object_num(o, "config_drive");
        if (wanted)
                documents_openstack(j->c, o, ret);
        control_unlock(j->c);
        return wanted;
}

static int write_tree(const char *tree, const struct buf *text, const char *version, struct err **e)
{
        static const char latest[] = "openstack/latest/";
        const char *p = buf_str(text), *end = p + text->len;
        _cleanup_free_ char *dir = xcheck(path_printf("%s/openstack/%s", tree, version));
        struct bundle_item x;
        int r = mkdir_parents(dir, 0700, e);

        while (r == 0 && bundle_next(&p, end, &x)) {
                size_t skip = strlen(latest);
                _cleanup_free_ char *path = xcheck(
                        path_printf("%s/%.*s", dir, (int)(x.name_len - skip), x.name + skip));

                r = file_replace(path, x.data, x.len, 0600, e);
        }
        return r;
}

int plan_config(struct job *j, struct plan *p, struct err **e)
{
        _cleanup_buf_ struct buf text = {};
        _cleanup_free_ char *tree = NULL, *made = NULL, *path = NULL;
        int r;

        if (!config_get(j, &text))
                return 0;
        tree = xcheck(path_printf("%s/config", p->dir));
        made = xcheck(path_printf("%s/config.made", p->dir));
        path = xcheck(path_printf("%s/config.iso", p->dir));
        r = remove_tree(tree, e);
        for (size_t i = 0; r == 0 && i < ARRAY_SIZE(versions); i++)
                r = write_tree(tree, &text, versions[i], e);
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
