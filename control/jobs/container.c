/* Containers: their root on this host, their start, and their restart.
 *
 * In the instance's folder is `tree`, which only root of this host and of the container may pass
 * through.  In it are `root`, unpacked from the image at the first start and kept until the
 * instance is deleted, and `config`, what a config drive would hold. */
#include "control/jobs/plan.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "common/child.h"
#include "common/fileio.h"
#include "control/hosts.h"

/* Each has a range of users; two that share one are as far apart as there are ranges. */
enum { RANGES = 32768 };
#define RANGE_BASE 2000000000u

int compute_engines(struct control *c, struct compute *v[ENGINES], size_t *ret_n, struct err **e)
{
        struct object *o, *tmp;
        bool containers = false;
        int r;

        control_rdlock(c);
        HASH_ITER (hh_no, c->by_no, o, tmp)
                containers |= o->kind == &kind_instance && instance_container(o) &&
                              *object_str(o, "host") && feed_ours(c, o);
        control_unlock(c);
        r = c->cfg.compute(c->cfg.arg, &v[0], e);
        *ret_n = r == 0;
        if (containers && c->cfg.containers) {
                int r2 = c->cfg.containers(c->cfg.arg, &v[*ret_n], r < 0 ? NULL : e);

                if (r2 == 0)
                        ++*ret_n;
                r = r < 0 ? r : r2;
        }
        return r;
}

/* --- the root -------------------------------------------------------------------------------- */

void plan_container(struct plan *p, const struct object *o)
{
        struct object *image = object_target(o, "image");

        p->container = true;
        p->g.hypervisor = HYPERVISOR_LXC;
        p->g.id_base = RANGE_BASE + (uid_t)(o->no % RANGES) * GUEST_IDS;
        p->tree = path_printf("%s/tree", p->dir);
        p->root = path_printf("%s/root", p->tree);
        p->g.root = p->root;
        p->root_max = object_num(o, "disk");
        p->rooted = *object_str(o, "rooted");
        if (image)
                id_text(p->root_image, image->id);
        for (unsigned i = 0; i < p->g.nnics; i++)
                snprintf(p->nics[i].guest, sizeof(p->nics[i].guest), "eth%u", i);
}

/* Its paths may be deeper than remove_tree() goes, and are nobody's any more. */
static int remove_root(const char *path, struct err **e)
{
        return child_check(
                &(struct child){.argv = (const char *const[]){"rm", "-rf", "--", path, NULL},
                                .timeout_ms = 3600000},
                e);
}

int container_remove(const char *dir, struct err **e)
{
        _cleanup_free_ char *tree = xcheck(path_printf("%s/tree", dir));

        return access(tree, F_OK) < 0 ? 0 : remove_root(tree, e);
}

/* Whole, and on disk: only then it has the name. */
static int keep_root(const char *new, const char *root, struct err **e)
{
        _cleanup_close_ int fd = open(new, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

        if (fd < 0 || syncfs(fd) < 0 || rename(new, root) < 0 || fsync_parent(root) < 0)
                return err_errno(e, -errno, "keep the root");
        return 0;
}

static int unpack_root(struct job *j, struct plan *p, struct err **e)
{
        struct image_service *s = j->c->cfg.images;
        _cleanup_free_ char *new = xcheck(path_printf("%s.new", p->root)), *copy = NULL;
        int r;

        if (!s->ops->unpack)
                return err_set(e, -ENOTSUP, "trees cannot be unpacked here");
        if (p->rooted)
                return err_set(e, -EIO, "its root is gone: '%s'", p->root);
        if (!*p->root_image)
                return err_set(e, -EINVAL, "it has no image, and no root yet");
        r = remove_root(new, e);
        if (r == 0 && mkdir(new, 0755) < 0)
                r = err_errno(e, -errno, "create '%s'", new);
        if (r == 0)
                r = plan_fetch(j, p, p->root_image, "tree.tar", &copy, e);
        if (r == 0)
                r = s->ops->unpack(s, p->root_image, copy, new, p->g.id_base, p->root_max, e);
        if (copy)
                unlink(copy);
        if (r < 0) {
                remove_root(new, NULL);
                return err_prepend(e, r, "its root");
        }
        return keep_root(new, p->root, e);
}

/* Whether there is such a file, as the container sees it: no link leads out. */
static bool has(int root, const char *path)
{
        struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};
        _cleanup_close_ int fd = (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
        struct stat st;

        return fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 0111);
}

static int find_init(struct plan *p, struct err **e)
{
        static const char *const inits[] = {"/sbin/init", "/init", "/etc/init", "/bin/init",
                                            "/bin/sh"};
        _cleanup_close_ int root = open(p->root, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

        if (root < 0)
                return err_errno(e, -errno, "open its root");
        for (size_t i = 0; i < ARRAY_SIZE(inits); i++)
                if (has(root, inits[i])) {
                        p->g.init = inits[i];
                        return 0;
                }
        return err_set(e, -ENOENT, "its root has no /sbin/init, /init, /etc/init or /bin/sh");
}

static int plan_root(struct job *j, struct plan *p, struct err **e)
{
        struct stat st;
        int r = mkdir_parents(p->dir, 0711, e);

        if (r == 0)
                r = mkdir_parents(p->tree, 0710, e);
        if (r < 0)
                return r;
        if (chown(p->tree, 0, p->g.id_base) < 0 || chmod(p->tree, 0710) < 0)
                return err_errno(e, -errno, "give '%s' to its container", p->tree);
        if (lstat(p->root, &st) < 0)
                r = errno == ENOENT ? unpack_root(j, p, e) : err_errno(e, -errno, "open its root");
        return r < 0 ? r : find_init(p, e);
}

/* --- start ----------------------------------------------------------------------------------- */

int container_boot(struct job *j, struct plan *p, struct err **e)
{
        enum guest_state before = GUEST_GONE;
        struct compute *compute;
        int r = instance_compute(j, &compute, e);

        if (r == 0)
                r = compute->ops->state(compute, p->g.uuid, &before, e);
        if (r < 0)
                return r;
        if (before == GUEST_GONE) {
                r = plan_root(j, p, e);
                if (r == 0)
                        r = plan_config(j, p, e);
                if (r == 0)
                        r = lease_clients(j->c, e);
                if (r == 0 && p->g.nnics) /* the bridges */
                        r = networks_apply(j->c, e);
                if (r == 0)
                        console_new_boot(p->dir);
                if (r == 0)
                        r = compute->ops->start(compute, &p->g, e);
        }
        if (r == 0 && p->g.nnics) /* what the engine has made goes into them */
                r = networks_apply(j->c, e);
        if (r == 0)
                instance_describe(j, compute);
        return r;
}

/* --- restart --------------------------------------------------------------------------------- */

static int step_boot(struct job *j, struct err **e)
{
        _cleanup_(plan_done) struct plan p = {};
        int r = plan_guest(j, &p, e);

        if (r == -EAGAIN)
                return job_wait(j, 0, 200000, "the host's accelerator is being probed");
        if (r == 0)
                r = container_boot(j, &p, e);
        return r == -ECONNREFUSED ? instance_wait_engine(j, e) : r;
}

static int done(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        if (o && o->state == INSTANCE_REBOOTING)
                txn_set_state(t, o, INSTANCE_ACTIVE);
        return 0;
}

static const struct job_step steps[] = {{"off", instance_step_off}, {"boot", step_boot}};

const struct job_def job_container_restart = {.op = "instance.restart",
                                              .deadline = 600,
                                              .steps = steps,
                                              .nsteps = ARRAY_SIZE(steps),
                                              .done = done,
                                              .failed = instance_failed_running};
