/* The life of a guest after its start: stop, reboot, pause, resume, delete, and putting down what
 * really happened to it. */
#include "control/network.h"

#include <fcntl.h>

#include "common/fileio.h"

enum {
        ASK_AGAIN_US = 3000000, /* a guest that was still booting did not hear the first time */
        ENGINE_US = 2000000,    /* between tries at a hypervisor's daemon that is down */
        STALL_US = 500000,      /* between tries to wake a guest whose disk did not answer */
};

int instance_compute(struct job *j, struct compute **ret, struct err **e)
{
        const struct control_config *cfg = &j->c->cfg;
        const struct object *o;
        bool container;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        container = o && o->kind == &kind_instance && instance_container(o);
        control_unlock(j->c);
        if (!container)
                return cfg->compute(cfg->arg, ret, e);
        return cfg->containers ? cfg->containers(cfg->arg, ret, e)
                               : err_set(e, -ENOTSUP, "no containers run on this host");
}

int instance_unexport(struct job *j, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        char id[32][ID_TEXT_SIZE];
        struct object *o;
        unsigned n = 0;
        int r = 0;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        for (unsigned i = 0; o && i < o->nlinks && n < ARRAY_SIZE(id); i++)
                if (o->links[i].target->kind == &kind_volume ||
                    (int)o->links[i].def == kind_link(o->kind, "cdrom"))
                        snprintf(id[n++], ID_TEXT_SIZE, "%s", o->links[i].id);
        control_unlock(j->c);
        for (unsigned i = 0; i < n; i++) { /* the others even if one fails */
                int one = s->ops->unexport(s, id[i], r < 0 ? NULL : e);

                r = r < 0 ? r : one;
        }
        return r;
}

int instance_step_unexport(struct job *j, struct err **e)
{
        int r = instance_unexport(j, e);

        return r == -ECONNREFUSED ? job_wait_blockd(j, e) : r;
}

/* Read whole or not at all, as file_replace() has it; but nothing is lost with it in a crash, so
 * the disk is not waited for. */
static void write_whole(const char *path, const char *text)
{
        _cleanup_free_ char *new = xcheck(path_printf("%s.new", path));
        _cleanup_close_ int fd = open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        if (fd >= 0 && write_full(fd, text, strlen(text)) == 0)
                rename(new, path);
}

/* Looking at it costs nothing then.  What cannot be written down is left as it was. */
void instance_describe(struct job *j, struct compute *compute)
{
        _cleanup_free_ char *path = NULL, *xml = NULL;
        char id[ID_TEXT_SIZE];
        struct object *o;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        if (o) {
                path = instance_domain(j->c, o);
                id_text(id, o->id);
        }
        control_unlock(j->c);
        if (path && compute->ops->describe(compute, id, &xml, NULL) == 0)
                write_whole(path, xml);
}

void instance_settle(struct job *j, const char *target)
{
        struct compute *compute;
        struct facts f;

        if (job_facts(j, &f, NULL) == 0 && instance_compute(j, &compute, NULL) == 0 &&
            compute->ops->settle)
                compute->ops->settle(compute, f.id, target);
}

static void unlink_all(struct txn *t, struct object *o)
{
        while (o->nlinks) {
                struct link *l = &o->links[o->nlinks - 1];
                struct object *v = l->target;

                if (v->kind == &kind_port) {
                        instance_unlink_port(t, o, l);
                        continue;
                }
                if (v->kind == &kind_volume)
                        instance_release_volume(t, o, v);
                txn_unlink(t, o, l);
                if (v->kind == &kind_volume && object_num(v, "made_for") == o->no && !v->nameless)
                        volume_remove(t, v, NULL); /* refused: somebody else uses it now */
        }
}

/* --- stop ------------------------------------------------------------------------------------ */

int instance_look(struct job *j, struct compute **compute, struct facts *f, enum guest_state *ret,
                  struct err **e)
{
        int r = job_facts(j, f, e);

        if (r == 0)
                r = instance_compute(j, compute, e);
        if (r == 0)
                r = (*compute)->ops->state(*compute, f->id, ret, e);
        if (r == -ENOENT && *f->id) {
                if (e)
                        *e = err_free(*e);
                *ret = GUEST_GONE;
                r = 0;
        }
        return r;
}

int instance_wait_engine(struct job *j, struct err **e)
{
        if (e)
                *e = err_free(*e);
        return job_wait(j, 0, ENGINE_US, "the hypervisor's daemon does not answer");
}

/* args: "now", or the second since 1970 at which patience ends. */
static int off(struct job *j, struct err **e)
{
        int64_t until = streq(j->args, "now") ? 0 : strtoll(j->args, NULL, 10);
        enum guest_state s;
        struct compute *compute;
        struct facts f;
        int r = instance_look(j, &compute, &f, &s, e);

        if (r < 0 || s == GUEST_GONE)
                return r;
        if (clock_now() / 1000000 >= until || s == GUEST_CRASHED)
                return compute->ops->destroy(compute, f.id, e);
        if (s == GUEST_PAUSED || s == GUEST_STALLED)
                compute->ops->resume(compute, f.id, NULL); /* a halted guest hears no button */
        r = compute->ops->shutdown(compute, f.id, e);
        if (r == -ENOENT) {
                if (e)
                        *e = err_free(*e);
                return 0;
        }
        if (r < 0)
                return r;
        return job_wait(j, j->target,
                        MIN((int64_t)ASK_AGAIN_US, MAX(until * 1000000 - clock_now(), 10000L)),
                        "the guest was asked to power off");
}

int instance_step_off(struct job *j, struct err **e)
{
        int r = off(j, e);

        return r == -ECONNREFUSED ? instance_wait_engine(j, e) : r;
}

static int done_stop(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        if (o && !instance_leaves(o)) {
                txn_set_state(t, o, INSTANCE_STOPPED);
                txn_set_str(t, o, "stalled", NULL);
        }
        return 0;
}

static void failed_stop(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (!o || o->state != INSTANCE_STOPPING)
                return;
        txn_set_state(t, o, INSTANCE_ACTIVE); /* sync puts down what it really is */
        job_start(t, o, &job_instance_sync, NULL);
}

/* --- reboot, pause, resume ----------------------------------------------------------------------
 */

static int step_reboot(struct job *j, struct err **e)
{
        enum guest_state s;
        struct compute *compute;
        struct facts f;
        int r = instance_look(j, &compute, &f, &s, e);

        if (r == 0)
                r = compute->ops->reboot(compute, f.id, streq(j->args, "hard"), e);
        if (r == 0 && s == GUEST_PAUSED)
                r = compute->ops->resume(compute, f.id, e);
        return r;
}

static int done_running(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        if (o && o->state == INSTANCE_REBOOTING)
                txn_set_state(t, o, INSTANCE_ACTIVE);
        return 0;
}

/* What it really is now is put down by a sync. */
void instance_failed_running(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (!o || instance_leaves(o) || o->state == INSTANCE_STARTING ||
            !o->kind->states[o->state].transient) /* its host died: taken over */
                return;
        txn_set_state(t, o, INSTANCE_ACTIVE);
        job_start(t, o, &job_instance_sync, NULL);
}

/* QEMU pauses once the requests in flight are answered, and answers nothing meanwhile. */
static int step_pause(struct job *j, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        struct compute *compute;
        struct facts f;
        int r = job_facts(j, &f, e);

        if (r == 0 && s->ops->ping(s, NULL) == -ECONNREFUSED)
                return job_wait_blockd(j, e);
        if (r == 0)
                r = instance_compute(j, &compute, e);
        if (r == 0)
                r = compute->ops->pause(compute, f.id, e);
        return r == -ECONNREFUSED ? instance_wait_engine(j, e) : r;
}

static int done_pause(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        if (o && o->state == INSTANCE_ACTIVE)
                txn_set_state(t, o, INSTANCE_PAUSED);
        return 0;
}

static int step_resume(struct job *j, struct err **e)
{
        struct compute *compute;
        struct facts f;
        int r = job_facts(j, &f, e);

        if (r == 0)
                r = instance_compute(j, &compute, e);
        if (r == 0)
                r = compute->ops->resume(compute, f.id, e);
        return r == -ECONNREFUSED ? instance_wait_engine(j, e) : r;
}

static int done_resume(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        if (o && o->state == INSTANCE_PAUSED)
                txn_set_state(t, o, INSTANCE_ACTIVE);
        return 0;
}

/* --- delete -------------------------------------------------------------------------------------
 */

/* A guest can only be there if it was started once; a draft's deletion asks no hypervisor. */
static int step_destroy(struct job *j, struct err **e)
{
        struct compute *compute;
        struct facts f;
        bool never, adopted, rooted;
        struct object *o;
        int r = job_facts(j, &f, e);

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        never = !o || !*object_str(o, "host");
        adopted = o && object_num(o, "adopted");
        rooted = o && *object_str(o, "rooted");
        control_unlock(j->c);
        if (r < 0 || never)
                return r;
        r = instance_compute(j, &compute, e);
        if (r == -ENOTSUP && f.container && !rooted) { /* nor was there ever one */
                if (e)
                        *e = err_free(*e);
                return 0;
        }
        if (r == 0)
                r = (adopted ? compute->ops->release : compute->ops->destroy)(compute, f.id, e);
        return r;
}

static int step_files(struct job *j, struct err **e)
{
        _cleanup_free_ char *dir = NULL;
        struct object *o;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        dir = o ? instance_dir(j->c, o) : NULL;
        control_unlock(j->c);
        if (dir && container_remove(dir, e) < 0)
                return -EIO;
        return dir ? remove_tree(dir, e) : 0;
}

static int done_delete(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        if (!o)
                return 0;
        unlink_all(t, o);
        txn_delete(t, o);
        return 0;
}

static void failed_delete(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (o)
                txn_set_state(t, o, INSTANCE_ERROR);
}

/* --- sync ----------------------------------------------------------------------------------------
 */

static int set_stalled(struct job *j, const char *text)
{
        struct object *o;
        struct txn t;

        txn_begin(&t, j->c, NULL);
        o = model_by_no(j->c, j->target);
        if (!o || streq(object_str(o, "stalled"), text)) {
                txn_abort(&t);
                return 0;
        }
        txn_set_str(&t, o, "stalled", text);
        txn_event(&t, o, *text ? "its disk does not answer: paused" : "its disk answers: goes on");
        return txn_commit(&t, NULL);
}

/* A disk's server was away.  Once it answers again the guest goes on; until then it waits, and no
 * error reaches it. */
static int wake_stalled(struct job *j, struct compute *compute, const struct facts *f)
{
        struct volume_service *s = j->c->cfg.volumes;

        set_stalled(j, "stalled");
        if (s->ops->ping(s, NULL) == 0)
                compute->ops->resume(compute, f->id, NULL);
        return job_wait(j, j->target, STALL_US, "its disk does not answer");
}

/* A start or a resume whose engine went away in the middle was taken for failed, and was none. */
static int end_stray(struct job *j, struct compute *compute, const struct facts *f, struct err **e)
{
        int r = compute->ops->destroy(compute, f->id, e);
        struct object *o;
        struct txn t;

        if (r < 0)
                return r == -ECONNREFUSED ? instance_wait_engine(j, e) : r;
        txn_begin(&t, j->c, NULL);
        o = model_by_no(j->c, j->target);
        if (o)
                txn_event(&t, o, "a guest was there that should not be: ended");
        txn_commit(&t, NULL);
        return instance_step_unexport(j, e);
}

static int step_look(struct job *j, struct err **e)
{
        enum guest_state s;
        struct compute *compute;
        struct facts f;
        int r = instance_look(j, &compute, &f, &s, e);

        if (r == -ECONNREFUSED) /* the engine is down: its guests are not */
                return instance_wait_engine(j, e);
        if (r < 0)
                return r;
        j->value = s;
        if ((STATE(f.state) & INSTANCE_OFF) && !f.nameless)
                return s == GUEST_GONE || f.adopted ? 0 : end_stray(j, compute, &f, e);
        if (s == GUEST_STALLED && !f.nameless && f.state != INSTANCE_PAUSED &&
            (STATE(f.state) & INSTANCE_RUNS))
                return wake_stalled(j, compute, &f);
        set_stalled(j, "");
        j->value = s;
        if (f.container && s == GUEST_RUNNING) /* one that restarted itself has new cables */
                networks_apply(j->c, NULL);
        if (s == GUEST_CRASHED)
                r = compute->ops->destroy(compute, f.id, e);
        return s == GUEST_GONE || s == GUEST_CRASHED ? instance_step_unexport(j, e) : r;
}

unsigned instance_up(const struct object *o)
{
        return object_num(o, "rescue")          ? INSTANCE_RESCUED
               : *object_str(o, "resized_from") ? INSTANCE_RESIZED
                                                : INSTANCE_ACTIVE;
}

static int done_sync(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        enum guest_state s = j->value;

        if (o && object_num(o, "adopted") && object_in(o, INSTANCE_OFF) &&
            (s == GUEST_RUNNING || s == GUEST_PAUSED)) /* by libvirt's other users */
                txn_set_state(t, o, s == GUEST_RUNNING ? INSTANCE_ACTIVE : INSTANCE_PAUSED);
        if (!o || !object_in(o, INSTANCE_RUNS))
                return 0;
        if (s == GUEST_GONE || s == GUEST_CRASHED) {
                txn_event(t, o, s == GUEST_GONE ? "the guest is off" : "the guest crashed");
                txn_set_state(t, o, INSTANCE_STOPPED);
        } else if (s == GUEST_PAUSED && instance_up(o) == INSTANCE_ACTIVE) {
                txn_set_state(t, o, INSTANCE_PAUSED);
        } else if (s == GUEST_RUNNING || s == GUEST_PAUSED) {
                txn_set_state(t, o, instance_up(o));
        }
        return 0;
}

static const struct job_step stop_steps[] = {{"off", instance_step_off},
                                             {"unexport", instance_step_unexport}};
static const struct job_step reboot_steps[] = {{"reboot", step_reboot}};
static const struct job_step pause_steps[] = {{"pause", step_pause}};
static const struct job_step resume_steps[] = {{"resume", step_resume}};
static const struct job_step delete_steps[] = {
        {"destroy", step_destroy}, {"unexport", instance_step_unexport}, {"files", step_files}};
static const struct job_step sync_steps[] = {{"look", step_look}};

const struct job_def job_instance_stop = {.op = "instance.stop",
                                          .deadline = 3700,
                                          .steps = stop_steps,
                                          .nsteps = ARRAY_SIZE(stop_steps),
                                          .done = done_stop,
                                          .failed = failed_stop};
const struct job_def job_instance_reboot = {.op = "instance.reboot",
                                            .deadline = 60,
                                            .steps = reboot_steps,
                                            .nsteps = ARRAY_SIZE(reboot_steps),
                                            .done = done_running,
                                            .failed = instance_failed_running};
const struct job_def job_instance_pause = {.op = "instance.pause",
                                           .deadline = 60,
                                           .steps = pause_steps,
                                           .nsteps = ARRAY_SIZE(pause_steps),
                                           .done = done_pause};
const struct job_def job_instance_resume = {.op = "instance.resume",
                                            .deadline = 60,
                                            .steps = resume_steps,
                                            .nsteps = ARRAY_SIZE(resume_steps),
                                            .done = done_resume};
const struct job_def job_instance_delete = {.op = "instance.delete",
                                            .deadline = 3700,
                                            .insists = true,
                                            .steps = delete_steps,
                                            .nsteps = ARRAY_SIZE(delete_steps),
                                            .done = done_delete,
                                            .failed = failed_delete};
const struct job_def job_instance_sync = {.op = "instance.sync",
                                          .deadline = 86400,
                                          .steps = sync_steps,
                                          .nsteps = ARRAY_SIZE(sync_steps),
                                          .done = done_sync};
