/* The files of an instance that migrates: a tar archive, which travels as a volume.
 *
 * Hosts have nothing in common but Ceph.  So the archive is imported into the pool that all hosts
 * reach, as a raw file, and read out of it by the other host; it is gone when the job is.  Sockets
 * are made anew there, and so is what describes the guest. */
#include "control/jobs/move.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "common/child.h"
#include "common/fileio.h"

bool parcel_travels(const struct control *c)
{
        return c->cfg.pool && !streq(c->cfg.pool, "local");
}

static char *folder(struct job *j)
{
        struct object *o;
        char *dir;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        dir = o ? instance_dir(j->c, o) : NULL;
        control_unlock(j->c);
        return dir;
}

static int pack(const char *dir, const char *file, struct err **e)
{
        return child_check(
                &(struct child){.argv = (const char *const[]){"tar", "-C", dir, "--numeric-owner",
                                                              "-S", "--warning=no-file-ignored",
                                                              "--warning=no-file-changed",
                                                              "--exclude=*.sock",
                                                              "--exclude=./domain.xml", "-cf", file,
                                                              ".", NULL},
                                .timeout_ms = 600000},
                e);
}

int parcel_send(struct job *j, const struct trip *t, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        _cleanup_free_ char *dir = folder(j), *file = dir ? path_printf("%s.parcel", dir) : NULL;
        int r;

        if (!parcel_travels(j->c) || !file || access(dir, F_OK) < 0)
                return 0;
        r = s->ops->remove(s, t->parcel, e); /* of an earlier try */
        if (r == 0)
                r = pack(dir, file, e);
        if (r == 0)
                r = s->ops->import(s, t->parcel, file, e);
        unlink(file);
        return r < 0 ? err_prepend(e, r, "its files") : 0;
}

static int unpack(const char *file, const char *dir, struct err **e)
{
        return child_check(
                &(struct child){.argv = (const char *const[]){"tar", "-C", dir, "--numeric-owner",
                                                              "-p", "-xf", file, NULL},
                                .timeout_ms = 600000},
                e);
}

int parcel_receive(struct job *j, const struct trip *t, const char *dir, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        _cleanup_free_ char *file = path_printf("%s.parcel", dir);
        _cleanup_free_ char *uri =
                path_printf("nbd+unix:///%s?socket=%s", t->parcel, s->shared_socket);
        _cleanup_err_ struct err *why = NULL;
        struct volume_facts f;
        int r;

        if (!parcel_travels(j->c))
                return 0;
        r = s->ops->stat(s, t->parcel, &f, &why);
        if (r == -ENOENT) /* it never ran: there were none */
                return 0;
        if (r < 0)
                return err_move(e, TAKE_PTR(why));
        r = child_check(
                &(struct child){.argv = (const char *const[]){"qemu-img", "convert", "-f", "raw",
                                                              "-O", "raw", uri, file, NULL},
                                .timeout_ms = 600000},
                e);
        if (r == 0)
                r = unpack(file, dir, e);
        unlink(file);
        return r < 0 ? err_prepend(e, r, "its files") : 0;
}

/* What stays is an image of some kilobytes that nobody knows. */
void parcel_drop(struct job *j, const struct trip *t)
{
        struct volume_service *s = j->c->cfg.volumes;
        _cleanup_err_ struct err *err = NULL;

        if (parcel_travels(j->c) && s->ops->remove(s, t->parcel, &err) < 0)
                log_warning("volume %s is left of a migration: %s", t->parcel, err_msg(err));
}
