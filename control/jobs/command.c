/* What a guest, or its machine, is told once: keys, an NMI, passwords, more processors and memory.
 */
#include "control/jobs/jobs.h"

static int guest(struct job *j, struct compute **compute, struct facts *f, struct err **e)
{
        int r = job_facts(j, f, e);

        return r < 0 ? r : instance_compute(j, compute, e);
}

static int step_keys(struct job *j, struct err **e)
{
        struct compute *compute;
        struct facts f;
        int r = guest(j, &compute, &f, e);

        return r < 0 ? r : compute->ops->keys(compute, f.id, j->args, e);
}

static int step_nmi(struct job *j, struct err **e)
{
        struct compute *compute;
        struct facts f;
        int r = guest(j, &compute, &f, e);

        return r < 0 ? r : compute->ops->nmi(compute, f.id, e);
}

static int done_nmi(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        if (o)
                txn_event(t, o, "got a non-maskable interrupt");
        return 0;
}

static int step_vcpus(struct job *j, struct err **e)
{
        struct compute *compute;
        struct object *o;
        unsigned vcpus;
        struct facts f;
        int r = guest(j, &compute, &f, e);

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        vcpus = o ? object_num(o, "vcpus") : 0;
        control_unlock(j->c);
        if (r == 0 && vcpus)
                r = compute->ops->set_vcpus(compute, f.id, vcpus, e);
        if (r == 0)
                instance_describe(j, compute);
        return r;
}

/* args: how many it had */
static void failed_vcpus(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (o)
                txn_set_num(t, o, "vcpus", strtoull(j->args, NULL, 10));
}

/* args: "USER HASH" */
static int step_password(struct job *j, struct err **e)
{
        _cleanup_free_ char *user = xstrdup(j->args);
        char *hash = strchr(user, ' ');
        struct compute *compute;
        struct facts f;
        int r = guest(j, &compute, &f, e);

        if (r < 0)
                return r;
        if (!hash)
                return err_set(e, -EINVAL, "there is no password");
        *hash++ = '\0';
        return compute->ops->password(compute, f.id, user, hash, e);
}

static int step_memory(struct job *j, struct err **e)
{
        struct compute *compute;
        uint64_t memory;
        struct object *o;
        struct facts f;
        int r = guest(j, &compute, &f, e);

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        memory = o ? object_num(o, "memory") : 0;
        control_unlock(j->c);
        if (r == 0 && memory)
                r = compute->ops->set_memory(compute, f.id, memory, e);
        if (r == 0)
                instance_describe(j, compute);
        return r;
}

/* args: how much it had */
static void failed_memory(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (o)
                txn_set_num(t, o, "memory", strtoull(j->args, NULL, 10));
}

/* The newest password, if several were asked for. */
static int step_vnc(struct job *j, struct err **e)
{
        char password[16] = "";
        struct compute *compute;
        struct object *o;
        int64_t until = 0;
        struct facts f;
        int r = guest(j, &compute, &f, e);

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        if (o) {
                snprintf(password, sizeof(password), "%s", object_str(o, "vnc_password"));
                until = object_num(o, "vnc_until");
        }
        control_unlock(j->c);
        return r < 0 || !*password ? r : compute->ops->screen(compute, f.id, password, until, e);
}

/* Nobody is shown it before QEMU knows it. */
static int done_vnc(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        if (o)
                txn_set_num(t, o, "vnc_open", 1);
        return 0;
}

static void failed_vnc(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (!o)
                return;
        txn_set_str(t, o, "vnc_password", NULL);
        txn_set_num(t, o, "vnc_until", 0);
}

static void forget(struct job *j, struct txn *t)
{
        struct object *o = model_by_no(t->c, j->no);

        if (o)
                txn_set_str(t, o, "args", NULL);
}

static int done_password(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        forget(j, t);
        if (o)
                txn_event(t, o, "a password is set");
        return 0;
}

static void failed_password(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        forget(j, t);
}

static const struct job_step keys_steps[] = {{"keys", step_keys}};
static const struct job_step nmi_steps[] = {{"nmi", step_nmi}};
static const struct job_step vcpus_steps[] = {{"vcpus", step_vcpus}};
static const struct job_step memory_steps[] = {{"memory", step_memory}};
static const struct job_step vnc_steps[] = {{"vnc", step_vnc}};
static const struct job_step password_steps[] = {{"password", step_password}};

const struct job_def job_instance_keys = {.op = "instance.send-key",
                                          .deadline = 60,
                                          .steps = keys_steps,
                                          .nsteps = ARRAY_SIZE(keys_steps)};
const struct job_def job_instance_nmi = {.op = "instance.crash-dump",
                                         .deadline = 60,
                                         .steps = nmi_steps,
                                         .nsteps = ARRAY_SIZE(nmi_steps),
                                         .done = done_nmi};
const struct job_def job_instance_vcpus = {.op = "instance.vcpus",
                                           .deadline = 60,
                                           .steps = vcpus_steps,
                                           .nsteps = ARRAY_SIZE(vcpus_steps),
                                           .failed = failed_vcpus};
const struct job_def job_instance_memory = {.op = "instance.memory",
                                            .deadline = 60,
                                            .steps = memory_steps,
                                            .nsteps = ARRAY_SIZE(memory_steps),
                                            .failed = failed_memory};
const struct job_def job_instance_vnc = {.op = "instance.vnc",
                                         .deadline = 60,
                                         .steps = vnc_steps,
                                         .nsteps = ARRAY_SIZE(vnc_steps),
                                         .done = done_vnc,
                                         .failed = failed_vnc};
const struct job_def job_instance_password = {.op = "instance.set-password",
                                              .deadline = 120,
                                              .steps = password_steps,
                                              .nsteps = ARRAY_SIZE(password_steps),
                                              .done = done_password,
                                              .failed = failed_password};
