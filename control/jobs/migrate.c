/* An instance goes to another host: one job, which goes to and fro between the two.
 *
 *     place    there or here  the scheduler says where to
 *     prepare  there          room, the instance's files, exports, ports
 *     load     here           one that is off, with disks in this host's own pool: a guest that has
 *                             them, and never runs
 *     move     here           a guest: libvirt takes it there, disks change hands on the way
 *     settle   there          is it there?  Then this is its host; else nothing of it is left there
 *     clean    here           nothing of it is left here, or it goes on here
 *     logs     there          what it said on its console until it went
 *
 * "Here" is the host it leaves, "there" the one it goes to.  Each step that ends writes the next
 * one and its host into the job, in one commit.  What went wrong is written into the instance and
 * does not end the job: it goes the same way back, so that each host clears up its own.
 *
 * No two hosts write a volume: libvirt lets a guest run on one of the two, the disks are given up
 * only when it stands still (activate() of the volume service), and a guest that did not get away
 * writes on only after the other host has said, in `settle`, that it has none.  A host that died is
 * fenced; its half of the way is skipped. */
#include "control/jobs/move.h"

#include "common/fileio.h"

enum { PLACE, PREPARE, LOAD, MOVE, SETTLE, CLEAN, LOGS };
enum { HERE = JOB_AWAY + 1 }; /* see at() */

/* --- the way -----------------------------------------------------------------------------------
 */

void trip_done(struct trip *t)
{
        free(t->arrival);
        free(t->words);
}

int trip_get(struct job *j, struct trip *t, struct err **e)
{
        struct object *o, *job;
        bool at_it;

        *t = (struct trip){};
        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        job = model_by_no(j->c, j->no);
        at_it = o && job && o->state == INSTANCE_MIGRATING;
        if (at_it) {
                id_text(t->id, o->id);
                id_text(t->parcel, job->id);
                snprintf(t->from, sizeof(t->from), "%s", object_str(o, "moving_from"));
                snprintf(t->to, sizeof(t->to), "%s", object_str(o, "moving_to"));
                snprintf(t->left, sizeof(t->left), "%s", object_str(o, "moving_left"));
                t->live = !streq(object_str(o, "moving"), "stopped");
                t->ferried = t->live || instance_has_local(o);
                t->came = streq(t->left, "came");
                t->code = -(int)object_num(o, "moving_code");
                t->words = xstrdup(object_str(o, "moving_words"));
                t->arrival = xstrdup(object_str(o, "arrival"));
        }
        control_unlock(j->c);
        return at_it ? 0 : err_set(e, -EHOSTDOWN, "its host died");
}

/* Writes what happened, and that the job goes on there with that step.  Any of why, left, arrival,
 * host (of the instance) may be NULL: as it was. */
struct leg {
        const char *to;
        unsigned step;
        int code;
        const struct err *why;
        const char *left, *arrival, *host;
};

/* Whether jobs can be given to that host: 1; 0: it is being taken over; -EHOSTDOWN: it is dead, and
 * fenced.  Model held. */
static int reach(struct control *c, const char *host)
{
        const struct object *o = host_find(c, host);

        return !o || o->state == HOST_DOWN ? -EHOSTDOWN : o->state != HOST_LOST;
}

static void write_leg(struct txn *t, struct object *o, struct object *job, const struct leg *g)
{
        if (g->code < 0 && !object_num(o, "moving_code")) { /* the first is the cause */
                txn_set_num(t, o, "moving_code", -g->code);
                txn_set_str(t, o, "moving_words", err_msg(g->why));
        }
        if (g->left && !streq(object_str(o, "moving_left"), "lost"))
                txn_set_str(t, o, "moving_left", g->left);
        if (g->arrival)
                txn_set_str(t, o, "arrival", g->arrival);
        if (g->host) {
                copies_came(t, o, object_str(o, "moving_from"), g->host);
                txn_set_str(t, o, "host", g->host);
                txn_set_str(t, o, "moving_left", "came");
                txn_set_num(t, o, "claim", t->c->epoch);
        }
        txn_set_num(t, job, "step", g->step);
        txn_set_str(t, job, "host", reach(t->c, g->to) > 0 ? g->to : t->c->cfg.host);
}

static int go_on_once(struct job *j, const struct leg *g, bool *ret_stays, struct err **e)
{
        struct object *o, *job;
        struct txn t;

        txn_begin(&t, j->c, NULL);
        o = model_by_no(j->c, j->target);
        job = model_by_no(j->c, j->no);
        if (!o || !job || !job_mine(j, job) || o->state != INSTANCE_MIGRATING) {
                txn_abort(&t);
                return o && job && !job_mine(j, job) ? JOB_AWAY
                                                     : err_set(e, -EHOSTDOWN, "its host died");
        }
        write_leg(&t, o, job, g);
        *ret_stays = streq(object_str(job, "host"), j->c->cfg.host);
        return txn_commit(&t, NULL);
}

static int go_on(struct job *j, const struct leg *g, struct err **e)
{
        bool stays = false;
        int r = AGAIN(j->c, e, go_on_once(j, g, &stays, e));

        if (r == JOB_AWAY || r == -EHOSTDOWN)
                return r;
        if (r < 0)
                return job_wait(j, 0, r == -ESTALE ? 50000 : 1000000, "the store refuses: %s",
                                strerror(-r));
        if (!stays)
                return JOB_AWAY;
        j->step = g->step;
        return job_wait(j, 0, 1, "goes on");
}

/* HERE: the step is to be done in this process.  -EHOSTDOWN: nobody can do it.  Else what the step
 * is to return. */
static int at(struct job *j, const char *host, struct err **e)
{
        int r;

        if (streq(host, j->c->cfg.host))
                return HERE;
        control_rdlock(j->c);
        r = reach(j->c, host);
        control_unlock(j->c);
        if (r < 0)
                return r;
        if (r == 0)
                return job_wait(j, 0, 200000, "host '%s' is being taken over", host);
        return go_on(j, &(struct leg){.to = host, .step = j->step}, e);
}

/* It does not go: by way of the other host, if that has anything of it. */
static int give_up(struct job *j, const struct trip *t, unsigned step, int code, struct err **e)
{
        _cleanup_err_ struct err *why = e ? TAKE_PTR(*e) : NULL;

        return go_on(j,
                     &(struct leg){.to = step == SETTLE ? t->to : t->from,
                                   .step = step,
                                   .code = code,
                                   .why = why,
                                   .left = "stayed"},
                     e);
}

/* --- place -------------------------------------------------------------------------------------
 */

static int place(struct job *j, struct txn *t, struct object *o, struct object *job, struct err **e)
{
        const bool live = !streq(object_str(o, "moving"), "stopped") || instance_has_local(o);
        const char *from = object_str(o, "host");
        char to[NAME_SIZE];
        int r;

        if (o->state != INSTANCE_MIGRATING)
                return err_set(e, -EHOSTDOWN, "its host died");
        if (live && !streq(object_str(host_find(t->c, from), "compute"), "system")) {
                err_set(e, -ENOTSUP,
                        "its host '%s' runs guests without a libvirtd: they cannot "
                        "leave it while they run",
                        from);
                return err_hint(e, -ENOTSUP, "stop it first; or see compute in admin/hosts/%s",
                                from),
                       -ENOTSUP;
        }
        r = instance_place_elsewhere(t, o, job, object_str(o, "moving_to"), live, to, e);
        if (r < 0)
                return r;
        txn_set_str(t, o, "moving_to", to);
        return 0;
}

static int step_place(struct job *j, struct err **e)
{
        _cleanup_(trip_done) struct trip trip = {};
        struct object *o, *job;
        struct txn t;
        int r = job_cancelled(j, e);

        if (r < 0)
                return r;
        txn_begin(&t, j->c, NULL);
        o = model_by_no(j->c, j->target);
        job = model_by_no(j->c, j->no);
        if (!o || !job || !job_mine(j, job)) {
                txn_abort(&t);
                return o && job ? JOB_AWAY : err_set(e, -ENOENT, "it is gone");
        }
        r = place(j, &t, o, job, e);
        if (r == -ENOSPC) { /* the reasons stay with the job */
                txn_commit(&t, NULL);
                return r;
        }
        if (r < 0) {
                txn_abort(&t);
                return r;
        }
        r = txn_commit(&t, e);
        if (r == -ESTALE) {
                *e = err_free(*e);
                return job_wait(j, 0, 50000, "changed by another host meanwhile");
        }
        if (r == 0)
                r = trip_get(j, &trip, e);
        if (r == 0)
                r = parcel_send(j, &trip, false, e);
        if (r == -ECONNREFUSED)
                return job_wait_blockd(j, e);
        if (r < 0) {
                parcel_drop(j, &trip);
                return r;
        }
        return go_on(j, &(struct leg){.to = trip.to, .step = PREPARE}, e);
}

/* --- prepare -----------------------------------------------------------------------------------
 */

/* "dir PATH" and "disk TARGET PATH", a line each: what the host that it leaves is to know. */
static void describe_arrival(const struct plan *p, struct buf *out)
{
        buf_printf(out, "dir %s\n", p->dir);
        for (unsigned i = 0; i < p->g.ndisks; i++)
                buf_printf(out, "disk %s %s\n", p->disks[i].target, p->socket[i]);
}

/* What its QEMU is to find, beside its disks. */
static int prepare_guest(struct job *j, struct plan *p, struct err **e)
{
        int r = 0;

        if (!parcel_travels(j->c)) { /* what can be made anew is */
                r = plan_kernel(j, p, e);
                if (r == 0)
                        r = plan_config(j, p, e);
                if (r == 0)
                        r = plan_firmware(p, e);
        }
        if (r == 0)
                r = plan_screen(p, e);
        if (r == 0 && p->g.nnics)
                r = networks_apply_for(j->c, j->target, e);
        return r;
}

static int prepare(struct job *j, struct trip *t, struct buf *arrival, struct err **e)
{
        _cleanup_(plan_done) struct plan p = {};
        struct object *o;
        int r;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        r = o ? instance_fits_here(j->c, o, e) : -ENOENT;
        control_unlock(j->c);
        if (r == 0)
                r = plan_guest(j, &p, e);
        if (r == 0)
                r = mkdir_parents(p.dir, 0711, e);
        if (r == 0)
                r = parcel_receive(j, t, p.dir, e);
        if (r == 0 && t->ferried)
                r = copies_make(j, e);
        if (r == 0 && t->ferried)
                r = plan_exports(j, &p, e);
        if (r == 0 && t->live)
                r = prepare_guest(j, &p, e);
        if (r == 0 && t->ferried)
                describe_arrival(&p, arrival);
        return r;
}
static int step_prepare(struct job *j, struct err **e)
{
        _cleanup_(trip_done) struct trip t = {};
        _cleanup_buf_ struct buf arrival = {};
        int r = trip_get(j, &t, e);

        if (r < 0)
                return r;
        r = at(j, t.to, e);
        if (r == -EHOSTDOWN) {
                err_set(e, r, "host '%s' died", t.to);
                return give_up(j, &t, CLEAN, r, e);
        }
        if (r != HERE)
                return r;
        if (streq(t.left, "lost") && t.ferried)
                return go_on(j, &(struct leg){.to = t.to, .step = SETTLE}, e);
        r = job_cancelled(j, e);
        if (r == -EINTR)
                return r;
        if (r == 0) /* also if its host died: the parcel is on its way */
                r = prepare(j, &t, &arrival, e);
        if (r == -EAGAIN) {
                *e = err_free(*e);
                return job_wait(j, 0, 200000, "the host's accelerator is being probed");
        }
        if (r == -ECONNREFUSED)
                return job_wait_blockd(j, e);
        if (r < 0)
                return give_up(j, &t, SETTLE, r, e);
        return go_on(j, &(struct leg){.to = t.from, .step = LOAD, .arrival = buf_str(&arrival)}, e);
}

/* --- load ---------------------------------------------------------------------------------------
 */

static int step_load(struct job *j, struct err **e)
{
        _cleanup_(trip_done) struct trip t = {};
        int r = trip_get(j, &t, e);

        if (r < 0)
                return r;
        if (t.live || !t.ferried)
                return go_on(j, &(struct leg){.to = t.from, .step = MOVE}, e);
        r = streq(t.left, "lost") ? -EHOSTDOWN : at(j, t.from, e);
        if (r == -EHOSTDOWN)
                return go_on(j, &(struct leg){.to = t.to, .step = SETTLE}, e);
        if (r != HERE)
                return r;
        r = job_cancelled(j, e);
        if (r == -EINTR)
                return r;
        if (r == 0)
                r = load_ferry(j, e);
        if (r == -EAGAIN) {
                *e = err_free(*e);
                return job_wait(j, 0, 200000, "the host's accelerator is being probed");
        }
        if (r == -ECONNREFUSED)
                return job_wait_blockd(j, e);
        if (r < 0)
                return give_up(j, &t, SETTLE, r, e);
        return go_on(j, &(struct leg){.to = t.from, .step = MOVE}, e);
}

/* --- move --------------------------------------------------------------------------------------
 */

static int step_move(struct job *j, struct err **e)
{
        _cleanup_(trip_done) struct trip t = {};
        const char *left = "stayed";
        int r = trip_get(j, &t, e);

        if (r < 0)
                return r;
        r = streq(t.left, "lost") ? -EHOSTDOWN : at(j, t.from, e);
        if (r == -EHOSTDOWN) /* it died: takeover.c has said so */
                return go_on(j, &(struct leg){.to = t.to, .step = SETTLE}, e);
        if (r != HERE)
                return r;
        r = job_cancelled(j, e);
        if (r == -EINTR)
                return r;
        if (r < 0 || !t.ferried)
                left = r < 0 ? "stayed" : "gone";
        else
                r = move_guest(j, &t, &left, e);
        if (r == -ECONNREFUSED)
                return instance_wait_engine(j, e);
        if (r == -EINTR) /* we end; the guest is here, and the job begins this step anew */
                return r;
        if (r == -EAGAIN)
                return job_wait_blockd(j, e);
        return go_on(
                j,
                &(struct leg){
                        .to = t.to, .step = SETTLE, .code = r, .why = e ? *e : NULL, .left = left},
                e);
}

/* --- settle ------------------------------------------------------------------------------------
 */

static bool lives(enum guest_state s)
{
        return s == GUEST_RUNNING || s == GUEST_PAUSED || s == GUEST_STALLED;
}

/* Whether it is here now: 1, 0, -ECONNREFUSED. */
static int look_for_it(struct job *j, const struct trip *t, struct compute **compute,
                       struct err **e)
{
        enum guest_state s;
        struct facts f;
        int r = instance_look(j, compute, &f, &s, e);

        if (r < 0)
                return r;
        if (streq(t->left, "stayed") || (!t->live && !streq(t->left, "gone")))
                return 0;
        if (s == GUEST_BETWEEN && t->live &&
            streq(t->left, "gone")) /* nobody else has it any more */
                return (*compute)->ops->resume(*compute, t->id, e) < 0 ? -EIO : 1;
        return lives(s);
}

/* Nothing of a guest, and nothing that waits for one. */
static int settle_down(struct job *j, const struct trip *t, struct compute *compute, struct err **e)
{
        int r = compute->ops->destroy(compute, t->id, e);

        return r < 0 ? r : instance_unexport(j, e);
}

static int settle(struct job *j, const struct trip *t, struct err **e)
{
        struct compute *compute;
        int r;

        if (!t->ferried)
                return streq(t->left, "gone") || streq(t->left, "lost");
        r = look_for_it(j, t, &compute, e);
        /* Its disks are here.  What holds them is the proof of that, until the store knows: the
         * last step ends it. */
        if (r == 1 && !t->live)
                return 1;
        if (r == 1) {
                if (compute->ops->resume && !streq(t->left, "lost"))
                        seat_it(j, compute, t);
                instance_describe(j, compute);
                return 1;
        }
        if (r == -ECONNREFUSED)
                return r;
        r = settle_down(j, t, compute, e);
        return r < 0 ? r : copies_drop(j, e);
}

static int step_settle(struct job *j, struct err **e)
{
        _cleanup_(trip_done) struct trip t = {};
        struct leg g = {.step = CLEAN};
        int r = trip_get(j, &t, e);

        if (r < 0)
                return r;
        r = at(j, t.to, e);
        if (r == HERE) {
                r = settle(j, &t, e);
                if (r == -ECONNREFUSED)
                        return instance_wait_engine(j, e);
                if (r < 0) {
                        _cleanup_err_ struct err *why = e ? TAKE_PTR(*e) : NULL;

                        return job_wait(j, 0, 1000000, "%s", err_msg(why));
                }
                if (r == 0)
                        drop_files(j);
        } else if (r == -EHOSTDOWN) { /* it died, and is fenced */
                r = err_set(e, -EHOSTDOWN, "host '%s' died", t.to);
        } else {
                return r;
        }
        g.to = t.from;
        g.code = r < 0 ? r : r == 0 && t.code == 0 ? -EIO : 0;
        if (r == 0 && t.code == 0)
                err_set(e, -EIO, "it did not arrive on host '%s'", t.to);
        g.why = e ? *e : NULL;
        g.host = r == 1 ? t.to : NULL;
        r = go_on(j, &g, e);
        if (r >= 0 && e)
                *e = err_free(*e);
        return r;
}

/* --- clean -------------------------------------------------------------------------------------
 */

/* By now nobody writes its console's log here. */
static int depart_whole(struct job *j, const struct trip *t, struct err **e)
{
        _cleanup_err_ struct err *why = NULL;

        if (t->live && parcel_send(j, t, true, &why) < 0)
                log_warning("guest %s: its console's log: %s", t->id, err_msg(why));
        return leave(j, t, e);
}

static int step_clean(struct job *j, struct err **e)
{
        _cleanup_(trip_done) struct trip t = {};
        int r = trip_get(j, &t, e);

        if (r < 0)
                return r;
        r = at(j, t.from, e);
        if (r != HERE && r != -EHOSTDOWN)
                return r;
        if (r == HERE && t.came)
                r = depart_whole(j, &t, e);
        else if (r == HERE)
                r = stay(j, &t, e);
        else
                r = 0;
        if (r == -ECONNREFUSED)
                return instance_wait_engine(j, e);
        if (r < 0) {
                _cleanup_err_ struct err *why = e ? TAKE_PTR(*e) : NULL;

                return job_wait(j, 0, 1000000, "%s", err_msg(why));
        }
        if (t.came && t.ferried)
                return go_on(j, &(struct leg){.to = t.to, .step = LOGS}, e);
        parcel_drop(j, &t);
        if (t.came) {
                j->step = LOGS; /* which is done */
                return 0;
        }
        return err_set(e, t.code ?: -EHOSTDOWN, "%s", t.words);
}

/* --- logs ---------------------------------------------------------------------------------------
 */

/* One that is off has arrived, and everybody knows. */
static int end_ferry(struct job *j, const struct trip *t, struct err **e)
{
        struct compute *compute;
        int r = instance_compute(j, &compute, e);

        if (r == 0)
                r = settle_down(j, t, compute, e);
        if (r == -ECONNREFUSED)
                return instance_wait_engine(j, e);
        if (r < 0) {
                _cleanup_err_ struct err *why = e ? TAKE_PTR(*e) : NULL;

                return job_wait(j, 0, 1000000, "%s", err_msg(why));
        }
        return 0;
}

/* It runs there whatever becomes of this. */
static int step_logs(struct job *j, struct err **e)
{
        _cleanup_(trip_done) struct trip t = {};
        int r = trip_get(j, &t, e);

        if (r < 0)
                return r;
        r = t.ferried ? at(j, t.to, e) : -EHOSTDOWN;
        if (r != HERE && r != -EHOSTDOWN)
                return r;
        if (r == HERE && !t.live) {
                r = end_ferry(j, &t, e);
                if (r != 0)
                        return r;
        } else if (r == HERE) {
                r = parcel_logs(j, &t, e);
        }
        if (r == -ECONNREFUSED)
                return job_wait_blockd(j, e);
        if (r < 0 && r != -EHOSTDOWN && e)
                log_warning("guest %s: %s", t.id, err_msg(*e));
        if (e)
                *e = err_free(*e);
        parcel_drop(j, &t);
        return 0;
}

/* --- the end -----------------------------------------------------------------------------------
 */

/* Gives the state it had. */
static unsigned forget(struct txn *t, struct object *o)
{
        static const char *const texts[] = {"moving",      "moving_from",  "moving_to",
                                            "moving_left", "moving_words", "arrival"};
        int before = kind_state(&kind_instance, object_str(o, "moving"));

        for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
                txn_set_str(t, o, texts[i], NULL);
        txn_set_num(t, o, "moving_code", 0);
        return before < 0 ? INSTANCE_STOPPED : (unsigned)before;
}

static int done(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        if (!o || o->state != INSTANCE_MIGRATING)
                return 0;
        txn_event(t, o, "migrated from host %s to %s", object_str(o, "moving_from"),
                  object_str(o, "host"));
        txn_set_state(t, o, forget(t, o));
        txn_set_num(t, o, "stays", o->state == INSTANCE_STOPPED);
        return 0;
}

/* Its volumes, if they are a host's own, are with that one still. */
void instance_stays_off(struct txn *t, struct object *o)
{
        if (!streq(object_str(o, "moving_left"), "came"))
                txn_set_str(t, o, "host", object_str(o, "moving_from"));
        forget(t, o);
        txn_set_state(t, o, INSTANCE_STOPPED);
}

/* Of a guest that is off by now a sync puts that down. */
static void failed(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        char from[NAME_SIZE], left[16];

        if (!o || o->state != INSTANCE_MIGRATING)
                return;
        snprintf(from, sizeof(from), "%s", object_str(o, "moving_from"));
        snprintf(left, sizeof(left), "%s", object_str(o, "moving_left"));
        if (streq(object_str(o, "moving"), "stopped")) {
                instance_stays_off(t, o);
                return;
        }
        txn_set_state(t, o, forget(t, o));
        if (streq(left, "lost") || !host_holds(t->c, from))
                instance_died(t, o, from);
        else if (j->step > PLACE && j->value == GUEST_GONE) /* its end would forget our words */
                job_start(t, o, &job_instance_sync, NULL);
}

int instance_migrate(struct txn *t, struct object *o, const char *args, struct err **e)
{
        const char *host = object_str(o, "host");

        if (!feed_shared(t->c))
                return err_set(e, -ENOTSUP, "migrate '%s': there is no other host", o->name);
        if (*args && t->who && !caller_is_admin(t->c, t->who))
                return err_set(e, -EPERM, "migrate takes a host's name from admins only");
        if (*args && !host_find(t->c, args))
                return err_at(e, -EINVAL, args, strlen(args), 0, strlen(args),
                              "there is no host '%s'", args);
        if (streq(args, host))
                return err_set(e, -EINVAL, "it is on host '%s'", args);
        if (!host_holds(t->c, host)) {
                err_set(e, -EHOSTDOWN, "its host '%s' is down", host);
                err_hint(e, -EHOSTDOWN, "echo start > ctl boots it on another host");
                return -EHOSTDOWN;
        }
        if (object_num(o, "adopted"))
                return err_set(e, -ENOTSUP, "it was adopted: its definition and disks are there");
        if (o->state != INSTANCE_STOPPED && object_num(o, "tpm"))
                return err_set(e, -EBUSY, "one with a TPM migrates while it is off");
        if (o->state != INSTANCE_STOPPED && object_target(o, "cdrom"))
                return err_set(e, -EBUSY, "a CD is in its drive: rm cdrom first");
        if (o->state == INSTANCE_STOPPED && !parcel_travels(t->c) &&
            (object_num(o, "tpm") || streq(instance_or_image(o, "firmware"), "uefi"))) {
                err_set(e, -ENOTSUP, "what its %s keeps is a file of its host",
                        object_num(o, "tpm") ? "TPM" : "UEFI");
                return -ENOTSUP;
        }
        txn_set_str(t, o, "moving", object_state(o));
        txn_set_str(t, o, "moving_from", host);
        txn_set_str(t, o, "moving_to", args);
        txn_set_str(t, o, "moving_left", NULL);
        txn_set_num(t, o, "moving_code", 0);
        job_start(t, o, &job_instance_migrate, NULL);
        txn_set_state(t, o, INSTANCE_MIGRATING);
        return 0;
}

static const struct job_step steps[] = {
        [PLACE] = {"place", step_place},    [PREPARE] = {"prepare", step_prepare},
        [LOAD] = {"load", step_load},       [MOVE] = {"move", step_move},
        [SETTLE] = {"settle", step_settle}, [CLEAN] = {"clean", step_clean},
        [LOGS] = {"logs", step_logs}};

const struct job_def job_instance_migrate = {.op = "instance.migrate",
                                             .deadline = 86400,
                                             .cancellable = true,
                                             .settles = true,
                                             .steps = steps,
                                             .nsteps = ARRAY_SIZE(steps),
                                             .done = done,
                                             .failed = failed};
