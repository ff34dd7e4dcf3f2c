/* The files of an instance that migrates: a tar archive, which travels as a volume.  Of a guest
 * that runs its console's log goes a second time when it has gone: by then it is whole.
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

/* Files of its console, or all. */
static int pack(const char *dir, const char *file, bool logs, struct err **e)
{
        static const char *const names[] = {"past",          "console.head",  "console.log",
                                            "console.log.0", "console.log.1", "console.log.2"};
        const char *argv[20] = {"tar",
                                "-C",
                                dir,
                                "--numeric-owner",
                                "-S",
                                "--warning=no-file-ignored",
                                "--warning=no-file-changed",
                                "--exclude=*.sock",
                                "--exclude=./domain.xml",
                                "-cf",
                                file};
        unsigned n = 11;

        for (unsigned i = 0; logs && i < ARRAY_SIZE(names); i++) {
                _cleanup_free_ char *path = xcheck(path_printf("%s/%s", dir, names[i]));

                if (access(path, F_OK) == 0)
                        argv[n++] = names[i];
        }
        if (n == 11)
                argv[n++] = logs ? "--files-from=/dev/null" : ".";
        return child_check(&(struct child){.argv = argv, .timeout_ms = 600000}, e);
}

int parcel_send(struct job *j, const struct trip *t, bool logs, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        _cleanup_free_ char *dir = folder(j), *file = dir ? path_printf("%s.parcel", dir) : NULL;
        int r;

        if (!parcel_travels(j->c) || !file || access(dir, F_OK) < 0)
                return 0;
        r = s->ops->remove(s, t->parcel, e); /* of an earlier try */
        if (r == 0)
                r = pack(dir, file, logs, e);
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

/* Into the folder; 0: there is none: it never ran, and has no files. */
static int fetch(struct job *j, const struct trip *t, const char *dir, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        _cleanup_free_ char *file = path_printf("%s.parcel", dir);
        _cleanup_free_ char *uri =
                path_printf("nbd+unix:///%s?socket=%s", t->parcel, s->shared_socket);
        _cleanup_err_ struct err *why = NULL;
        struct volume_facts f;
        int r;

        r = s->ops->stat(s, t->parcel, &f, &why);
        if (r == -ENOENT)
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
        return r < 0 ? r : 1;
}

/* It may say more there before it comes: that is in the second parcel. */
int parcel_receive(struct job *j, const struct trip *t, const char *dir, struct err **e)
{
        _cleanup_free_ char *head = xcheck(path_printf("%s/console.head", dir));
        int r = 0;

        if (!parcel_travels(j->c))
                return 0;
        unlink(head); /* of an earlier try */
        r = fetch(j, t, dir, e);
        if (r > 0 && t->live)
                r = console_arrived(dir, NULL, e);
        return r < 0 ? err_prepend(e, r, "its files") : 0;
}

int parcel_logs(struct job *j, const struct trip *t, struct err **e)
{
        _cleanup_free_ char *dir = folder(j), *whole = dir ? path_printf("%s.logs", dir) : NULL;
        int r;

        if (!parcel_travels(j->c) || !whole || access(dir, F_OK) < 0)
                return 0;
        r = mkdir_parents(whole, 0700, e);
        if (r == 0)
                r = fetch(j, t, whole, e);
        if (r > 0)
                r = console_arrived(dir, whole, e);
        remove_tree(whole, NULL);
        return r < 0 ? err_prepend(e, r, "its console's log") : 0;
}

/* What stays is an image of some kilobytes that nobody knows. */
void parcel_drop(struct job *j, const struct trip *t)
{
        struct volume_service *s = j->c->cfg.volumes;
        _cleanup_err_ struct err *err = NULL;

        if (parcel_travels(j->c) && s->ops->remove(s, t->parcel, &err) < 0)
                log_warning("volume %s is left of a migration: %s", t->parcel, err_msg(err));
}
