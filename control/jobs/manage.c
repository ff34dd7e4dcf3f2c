/* A file becomes a volume, and a volume a file; an RBD image, which stays where it is, likewise.
 *
 * manage: a raw file is imported as an immutable base, by a hard link where it is on the pool's
 * file system, the volume is its clone, and the base loses its id: the file is the volume's bottom
 * layer, and its name is gone.  From another file system it is copied, and stays.  A qcow2 is
 * taken as an upload: looked at by our own parsers, converted by the confined qemu-img.
 *
 * release: the volume is copied into PATH.ID.part, sparse, which gets its name once it is durable;
 * only then is the volume removed. */
#include "control/jobs/jobs.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "common/child.h"
#include "common/fileio.h"

enum { PIECE = 1 << 20, VIRTUAL_MAX_SHIFT = 44 };

static bool is_rbd(const char *path)
{
        return strncmp(path, "rbd:", 4) == 0;
}

static int check_path(const char *path, struct err **e)
{
        size_t n = strlen(path);

        if (is_rbd(path) && n > 4 && n < POOL_SIZE)
                return 0;

        if (n == 0 || *path != '/' || path[n - 1] == '/' || n > 4000)
                return err_set(e, -EINVAL, "an absolute path of a file on the host is wanted");
        return 0;
}

/* --- manage ------------------------------------------------------------------------------------
 */

int volume_manage(struct txn *t, struct object *o, union value v, struct err **e)
{
        int r = check_path(v.s ? v.s : "", e);
        char base[ID_TEXT_SIZE];

        if (r == 0 && volume_encrypted(o))
                r = err_set(e, -ENOTSUP, "a file becomes no encrypted volume: copy it into one");
        if (r == 0 && o->nlinks)
                r = err_set(e, -EINVAL, "it has a source already");
        if (r < 0)
                return r;
        if (is_rbd(v.s)) {
                char label[POOL_SIZE];
                const char *name;

                r = pool_of_image(t->c, v.s, label, &name, e);
                if (r < 0)
                        return r;
                volume_settle_in(t, o, label);
        }
        txn_set_str(t, o, "manage", v.s);
        txn_set_str(t, o, "base", id_text(base, id_new()));
        txn_set_state(t, o, VOLUME_CREATING);
        job_start(t, o, &job_volume_manage, NULL);
        return 0;
}

struct managed {
        char id[ID_TEXT_SIZE], base[ID_TEXT_SIZE];
        char *path;
        uint64_t size;
};

static void managed_done(struct managed *m)
{
        free(m->path);
}

static int managed_get(struct job *j, struct managed *m, struct err **e)
{
        struct object *o;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        if (o) {
                id_text(m->id, o->id);
                snprintf(m->base, sizeof(m->base), "%s", object_str(o, "base"));
                m->path = xstrdup(object_str(o, "manage"));
                m->size = object_num(o, "size");
        }
        control_unlock(j->c);
        return o ? 0 : err_set(e, -ENOENT, "it is gone");
}

/* Whether the volume service has it; forgets -ENOENT's words. */
static int there(struct job *j, const char *id, uint64_t *size, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        _cleanup_err_ struct err *err = NULL;
        struct volume_facts f;
        int r = s->ops->stat(s, id, &f, &err);

        if (r == 0)
                *size = f.size;
        if (r < 0 && r != -ENOENT)
                return err_move(e, TAKE_PTR(err));
        return r == 0;
}

static int open_file(const char *path, bool *qcow2, struct err **e)
{
        _cleanup_close_ int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        char magic[4] = "";
        struct stat st;

        if (fd < 0 || fstat(fd, &st) < 0)
                return err_errno(e, -errno, "open '%s'", path);
        if (!S_ISREG(st.st_mode) || st.st_size == 0)
                return err_set(e, -EINVAL, "'%s' is no regular file with bytes in it", path);
        if (pread(fd, magic, sizeof(magic), 0) < 0)
                return err_errno(e, -errno, "read '%s'", path);
        *qcow2 = memcmp(magic, "QFI\xfb", 4) == 0;
        return TAKE_FD(fd);
}

static int upload(struct job *j, struct image_blob *b, int fd, struct err **e)
{
        struct image_service *s = j->c->cfg.images;
        _cleanup_free_ char *p = xcalloc(1, PIECE);
        struct stat st;
        int r = fstat(fd, &st) < 0 ? -errno : 0;

        for (off_t off = 0; r == 0;) {
                ssize_t n = pread(fd, p, PIECE, off);

                if (n <= 0) {
                        r = n < 0 ? -errno : s->ops->sync(b);
                        break;
                }
                r = s->ops->pwrite(b, p, (size_t)n, (uint64_t)off);
                off += n;
                job_progress(j, (uint64_t)off, (uint64_t)st.st_size);
                if (r == 0)
                        r = job_cancelled(j, e);
        }
        return r < 0 && (!e || !*e) ? err_errno(e, r, "copy the image") : r;
}

static int report(void *arg, uint64_t done, uint64_t total)
{
        job_progress(arg, done, total);
        return job_cancelled(arg, NULL);
}

/* Through backend/image under the volume's id, which no image has. */
static int convert(struct job *j, const struct managed *m, int fd, struct err **e)
{
        struct image_service *s = j->c->cfg.images;
        struct volume_service *v = j->c->cfg.volumes;
        struct image_progress p = {report, j};
        _cleanup_free_ char *path = NULL;
        struct image_facts f = {};
        struct image_blob *b;
        int r = s->ops->create(s, m->id, e);

        if (r == 0)
                r = s->ops->open(s, m->id, true, &b, e);
        if (r < 0)
                return r;
        r = upload(j, b, fd, e);
        s->ops->close(b);
        if (r == 0)
                r = s->ops->inspect(s, m->id, "qcow2", 1ULL << VIRTUAL_MAX_SHIFT, &f, e);
        if (r == 0)
                r = s->ops->publish(s, m->id, &f, &p, &path, e);
        if (r == 0)
                r = v->ops->import(v, m->base, path, e);
        return r;
}

/* Its bytes stay where they are.  Again, for what snapshots it has, once it is a volume. */
static int adopt(struct job *j, const struct managed *m, bool again, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        _cleanup_free_ struct volume_named *v = NULL;
        char label[POOL_SIZE];
        const char *name;
        size_t n = 0;
        int r = pool_of_image(j->c, m->path, label, &name, e);

        if (r == 0 && !s->ops->adopt)
                r = err_set(e, -ENOTSUP, "this volume service adopts no images");
        if (r == 0)
                r = s->ops->adopt(s, m->id, label, name, &v, &n, e);
        return r == 0 && again ? manage_snapshots(j, v, n, e) : r;
}

static int step_import(struct job *j, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        _cleanup_(managed_done) struct managed m = {};
        _cleanup_close_ int fd = -1;
        uint64_t size = 0;
        bool qcow2;
        int r = managed_get(j, &m, e);

        if (r == 0)
                r = there(j, m.id, &size, e);
        if (r != 0) /* 1: from before a crash */
                return MIN(r, 0);
        if (is_rbd(m.path))
                return adopt(j, &m, false, e);
        r = there(j, m.base, &size, e);
        if (r < 0)
                return r;
        if (r == 0) {
                fd = open_file(m.path, &qcow2, e);
                if (fd < 0)
                        return fd;
                r = volume_place_new(j, m.base, e);
                if (r < 0)
                        return r;
                r = qcow2 ? convert(j, &m, fd, e) : s->ops->import(s, m.base, m.path, e);
                if (r == 0)
                        r = there(j, m.base, &size, e);
                if (r < 0)
                        return r;
        }
        r = volume_place_new(j, m.id, e);
        return r < 0 ? r : s->ops->clone(s, m.id, m.base, MAX(size, m.size), e);
}

/* A raw file that was linked has another name now: this one goes. */
static void drop_name(const char *path)
{
        _cleanup_close_ int fd = -1;
        bool qcow2 = true;
        struct stat st;

        fd = open_file(path, &qcow2, NULL);
        if (fd >= 0 && !qcow2 && fstat(fd, &st) == 0 && st.st_nlink > 1 && unlink(path) < 0)
                log_warning("managed file '%s' keeps its name: %m", path);
}

/* The base's id, the file's name, and what the conversion left. */
static int step_settle(struct job *j, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        struct image_service *images = j->c->cfg.images;
        _cleanup_(managed_done) struct managed m = {};
        int r = managed_get(j, &m, e);

        if (r == 0)
                r = there(j, m.id, &j->value, e);
        if (r == 1 && is_rbd(m.path))
                return adopt(j, &m, true, e);
        if (r == 1)
                r = s->ops->remove(s, m.base, e);
        if (r == 0)
                r = images->ops->remove(images, m.id, e);
        if (r == 0)
                drop_name(m.path);
        return r;
}

static int done_manage(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        if (!o || o->state != VOLUME_CREATING)
                return 0;
        txn_set_num(t, o, "actual", j->value);
        if (object_num(o, "size") < j->value)
                txn_set_num(t, o, "size", j->value);
        txn_set_state(t, o, volume_rest(o));
        if (object_num(o, "size") > j->value) {
                txn_set_state(t, o, VOLUME_EXTENDING);
                job_start(t, o, &job_volume_extend, NULL);
        }
        volume_limits_due(t, o);
        return 0;
}

/* The file has its name still as long as the first step runs: nothing is lost with the rest. */
static int undo_manage(struct job *j)
{
        struct volume_service *s = j->c->cfg.volumes;
        struct image_service *images = j->c->cfg.images;
        _cleanup_(managed_done) struct managed m = {};
        int r = managed_get(j, &m, NULL);

        if (r < 0 || (j->step > 0 && !is_rbd(m.path)))
                return 0;
        if (is_rbd(m.path)) { /* it must not be removed: it was somebody's */
                r = s->ops->release
                            ? s->ops->release(s, m.id, strrchr(m.path, '/') + 1, NULL, 0, NULL)
                            : 0;
                if (r < 0 && r != -ENOENT)
                        return r;
        }
        r = s->ops->remove(s, m.id, NULL);
        if (r == 0)
                r = s->ops->remove(s, m.base, NULL);
        return r == 0 ? images->ops->remove(images, m.id, NULL) : r;
}

static void failed_manage(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (o && o->state == VOLUME_CREATING)
                txn_set_state(t, o, VOLUME_ERROR);
}

/* --- release -----------------------------------------------------------------------------------
 */

int volume_release(struct txn *t, struct object *o, const char *args, struct err **e)
{
        int r = check_path(args, e);

        if (r == 0)
                r = is_rbd(args) ? volume_check_backups(o, e) : volume_check_snapshots(t, o, e);
        if (r == 0 && is_rbd(args) && volume_local(o))
                r = err_set(e, -EINVAL, "it is in files: 'retype' moves it to Ceph");
        if (r == 0 && is_rbd(args) && volume_encrypted(o))
                r = err_set(e, -ENOTSUP, "it is encrypted, and its key is not Ceph's");
        if (r == 0 && is_rbd(args) && strpbrk(args + 4, "/@"))
                r = err_set(e, -EINVAL, "the image stays in its pool and namespace: rbd:NAME");
        if (r == 0 && is_rbd(args))
                r = release_check_snapshots(t->c, o, e);
        if (r == 0 && o->writers)
                r = err_set(e, -EBUSY, "volume '%s' is being written through its data", o->name);
        if (r < 0)
                return r;
        txn_set_state(t, o, VOLUME_RELEASING);
        job_start(t, o, &job_volume_release, args);
        return 0;
}

struct target {
        char *part, *uri;
        uint64_t size;
};

static void target_done(struct target *w)
{
        free(w->part);
        free(w->uri);
}

static int target_get(struct job *j, struct target *w, struct err **e)
{
        char id[ID_TEXT_SIZE];
        struct object *o;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        if (o) {
                id_text(id, o->id);
                w->part = xcheck(path_printf("%s.%s.part", j->args, id));
                w->uri = xcheck(path_printf("nbd+unix:///%s?socket=%s", id,
                                            j->c->cfg.volumes->shared_socket));
                w->size = object_num(o, "size");
        }
        control_unlock(j->c);
        return o ? 0 : err_set(e, -ENOENT, "it is gone");
}

struct watch {
        struct job *j;
        int fd;
        uint64_t size;
};

static int tick(void *arg)
{
        struct watch *w = arg;
        struct stat st;

        if (fstat(w->fd, &st) == 0)
                job_progress(w->j, MIN((uint64_t)st.st_blocks * 512, w->size), w->size);
        return job_cancelled(w->j, NULL);
}

static int step_copy(struct job *j, struct err **e)
{
        _cleanup_(target_done) struct target w = {};
        _cleanup_close_ int fd = -1;
        struct watch watch;
        struct stat st;
        int r = is_rbd(j->args) ? 0 : target_get(j, &w, e);

        if (r < 0 || is_rbd(j->args))
                return r;
        if (lstat(j->args, &st) == 0)
                return err_set(e, -EEXIST, "'%s' is there already", j->args);
        if (unlink(w.part) < 0 && errno != ENOENT)
                return err_errno(e, -errno, "remove '%s'", w.part);
        fd = open(w.part, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0 || ftruncate(fd, (off_t)w.size) < 0)
                return err_errno(e, -errno, "create '%s'", w.part);
        watch = (struct watch){j, fd, w.size};
        r = child_check(
                &(struct child){.argv = (const char *const[]){"qemu-img", "convert", "-n",
                                                              "--target-is-zero", "-f", "raw", "-O",
                                                              "raw", w.uri, w.part, NULL},
                                .timeout_ms = 86400 * 1000,
                                .on_tick = tick,
                                .arg = &watch},
                e);
        if (r == 0 && fsync(fd) < 0)
                r = err_errno(e, -errno, "sync '%s'", w.part);
        return r;
}

static bool same_file(const char *a, const char *b)
{
        struct stat x, y;

        return lstat(a, &x) == 0 && lstat(b, &y) == 0 && x.st_dev == y.st_dev &&
               x.st_ino == y.st_ino;
}

static int step_name(struct job *j, struct err **e)
{
        _cleanup_(target_done) struct target w = {};
        int r = is_rbd(j->args) ? 0 : target_get(j, &w, e);

        if (is_rbd(j->args))
                return r;
        if (r == 0 && link(w.part, j->args) < 0 && !same_file(w.part, j->args))
                r = err_errno(e, -errno, "name the file '%s'", j->args);
        if (r == 0 && (r = fsync_parent(j->args)) < 0)
                r = err_errno(e, r, "sync the folder of '%s'", j->args);
        return r;
}

/* Repeated after its answer was lost, it finds no volume any more. */
static int image_again(struct job *j, const char *id, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        _cleanup_err_ struct err *why = NULL;
        _cleanup_free_ struct volume_named *v = NULL;
        size_t n;
        int r = -ENOTSUP;

        v = release_names(j, &n);
        if (s->ops->release)
                r = s->ops->release(s, id, j->args + 4, v, n, &why);
        return r < 0 && r != -ENOENT ? err_move(e, TAKE_PTR(why)) : 0;
}

static int step_drop(struct job *j, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        _cleanup_(target_done) struct target w = {};
        struct facts f;
        int r = job_facts(j, &f, e);

        if (r == 0)
                r = target_get(j, &w, e);
        if (r == 0)
                r = backup_drop_snapshots(j, j->target, false, e);
        if (r == 0 && is_rbd(j->args))
                return image_again(j, f.id, e);
        if (r == 0)
                r = s->ops->remove(s, f.id, e);
        if (r == -EBUSY)
                return job_wait_busy(j, e);
        if (r == 0 && unlink(w.part) < 0 && errno != ENOENT)
                log_warning("'%s' is left: %m", w.part);
        return r;
}

static int done_release(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        if (o) {
                txn_event(t, o, "released to %s", j->args);
                release_drop_snapshots(t, o);
                volume_let_clones_go(t, o, NULL);
                txn_delete(t, o);
        }
        return 0;
}

enum { STEP_DROP = 2 };

/* Before the volume's own bytes are touched the file is a copy that nobody waits for. */
static int undo_release(struct job *j)
{
        _cleanup_(target_done) struct target w = {};

        if (j->step >= STEP_DROP || is_rbd(j->args) || target_get(j, &w, NULL) < 0)
                return 0;
        if (same_file(w.part, j->args))
                unlink(j->args);
        unlink(w.part);
        return 0;
}

static void failed_release(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (o && o->state == VOLUME_RELEASING)
                txn_set_state(t, o,
                              j->step >= STEP_DROP && !is_rbd(j->args) ? VOLUME_ERROR
                                                                       : volume_rest(o));
}

static const struct job_step manage_steps[] = {{"import", step_import}, {"settle", step_settle}};
static const struct job_step release_steps[] = {
        {"copy", step_copy}, {"name", step_name}, [STEP_DROP] = {"drop", step_drop}};

const struct job_def job_volume_manage = {.op = "volume.manage",
                                          .deadline = 86400,
                                          .patient = true,
                                          .steps = manage_steps,
                                          .nsteps = ARRAY_SIZE(manage_steps),
                                          .done = done_manage,
                                          .failed = failed_manage,
                                          .undo = undo_manage};
const struct job_def job_volume_release = {.op = "volume.release",
                                           .deadline = 86400,
                                           .patient = true,
                                           .steps = release_steps,
                                           .nsteps = ARRAY_SIZE(release_steps),
                                           .done = done_release,
                                           .failed = failed_release,
                                           .undo = undo_release};
