/* Checking a volume's bytes in the volume service, and the report of it.
 *
 * The service does the work at a low rate; the job asks how far it is.  Its number is the token by
 * which the service knows that it has begun; one that restarted begins again. */
#include "control/jobs/jobs.h"

enum { ASK_US = 250000 };

static bool scrubs(const struct job *j)
{
        return j->def == &job_volume_scrub;
}

/* Fills in what the request says of the volume, and asks.  *ret is the caller's to give back. */
static int ask(struct job *j, struct volume_check_request *q, struct volume_report *ret,
               struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        struct object *o;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        if (o) {
                id_text(q->id, o->id);
                q->sums = object_num(o, "checksums");
        }
        control_unlock(j->c);
        if (!o)
                return err_set(e, -ENOENT, "it is gone");
        snprintf(q->token, sizeof(q->token), "%" PRIu64, j->no);
        q->scrub = scrubs(j);
        return s->ops->check(s, q, ret, e);
}

/* So that it shows as running, which a job does from its second step. */
static int step_begin(struct job *j, struct err **e)
{
        return job_cancelled(j, e);
}

static int step_check(struct job *j, struct err **e)
{
        struct volume_check_request q = {.start = true};
        _cleanup_err_ struct err *why = NULL;
        struct volume_report report = {};
        int r = job_cancelled(j, e);

        if (r == -ECANCELED) {
                q = (struct volume_check_request){.cancel = true};
                ask(j, &q, &report, NULL);
                volume_report_done(&report);
        }
        if (r < 0)
                return r;
        r = ask(j, &q, &report, &why);
        if (r == -EBUSY)
                return job_wait(j, 0, ASK_US, "others are being checked");
        if (r < 0)
                return err_move(e, TAKE_PTR(why));
        job_progress(j, report.done, report.total);
        if (report.state == VOLUME_CHECK_RUNNING)
                r = job_wait(j, 0, ASK_US, "it is being read");
        else if (report.state == VOLUME_CHECK_CANCELLED)
                r = err_set(e, -ECANCELED, "the volume service ended it");
        else if (report.state == VOLUME_CHECK_FAILED)
                r = err_set(e, -EIO, "%s", report.words);
        volume_report_done(&report);
        return r;
}

/* A line for `checked`: "scrub 2026-01-31T12:00:00Z found 3 repaired 2". */
static void summary(const struct job *j, const struct volume_report *r, struct buf *out)
{
        char when[CLOCK_TEXT_MAX];

        buf_printf(out, "%s %s found %" PRIu64 " repaired %" PRIu64, scrubs(j) ? "scrub" : "check",
                   clock_format(when, clock_now()), r->found, r->repaired);
}

/* A step of its own, so that what is kept is what has ended. */
static int step_report(struct job *j, struct err **e)
{
        struct volume_check_request q = {};
        _cleanup_buf_ struct buf line = {};
        struct volume_report report = {};
        struct object *o;
        struct txn t;
        int r = ask(j, &q, &report, e);

        if (r < 0)
                return r;
        if (report.state != VOLUME_CHECK_DONE) {
                volume_report_done(&report);
                j->step = 1; /* the volume service forgot: it has restarted */
                return job_wait(j, 0, ASK_US, "it begins again");
        }
        summary(j, &report, &line);
        txn_begin(&t, j->c, NULL);
        o = model_by_no(j->c, j->target);
        if (o) {
                txn_set_str(&t, o, "checked", buf_str(&line));
                txn_set_str(&t, o, "report", report.findings);
                if (report.found)
                        txn_event(&t, o, "%s", buf_str(&line));
        }
        r = txn_commit(&t, e);
        volume_report_done(&report);
        return r;
}

static const struct job_step steps[] = {
        {"begin", step_begin}, {"check", step_check}, {"report", step_report}};

const struct job_def job_volume_check = {.op = "volume.check",
                                         .deadline = 86400,
                                         .patient = true,
                                         .cancellable = true,
                                         .aside = true,
                                         .steps = steps,
                                         .nsteps = ARRAY_SIZE(steps)};
const struct job_def job_volume_scrub = {.op = "volume.scrub",
                                         .deadline = 30 * 86400,
                                         .patient = true,
                                         .cancellable = true,
                                         .aside = true,
                                         .steps = steps,
                                         .nsteps = ARRAY_SIZE(steps)};
