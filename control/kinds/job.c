/* Jobs, as people see them. */
#include "control/job.h"

enum { QUEUED, RUNNING, DONE, FAILED, CANCELLED };

static uint64_t load(const uint64_t *p)
{
        return __atomic_load_n(p, __ATOMIC_RELAXED);
}

/* "42.10% 4404019200/10485760000" */
static void render_progress(struct control *c, const struct object *o, struct buf *out)
{
        if (o->state == DONE)
                buf_addstr(out, "100%");
        else if (load(&o->total))
                render_done(o, out);
        else
                buf_addstr(out, "0%");
}

static void render_eta(struct control *c, const struct object *o, struct buf *out)
{
        uint64_t done = load(&o->done), total = load(&o->total);
        double spent = (clock_now() - o->created) / 1e6;

        if (o->state >= DONE)
                buf_addc(out, '0');
        else if (done && total > done)
                buf_printf(out, "%.0f", spent * (total - done) / done);
        else
                buf_addstr(out, "unknown");
}

static void render_started(struct control *c, const struct object *o, struct buf *out)
{
        char text[CLOCK_TEXT_MAX];

        buf_addstr(out, clock_format(text, o->created));
}

static const struct attr_def attrs[] = {
        {"op", ATTR_TEXT, ROLE_NOBODY, .index = true, .help = "what it does"},
        {"target", ATTR_TEXT, ROLE_NOBODY, .index = true, .help = "path of the object"},
        {"step", ATTR_NUMBER, ROLE_NOBODY, .help = "step it has reached"},
        {"progress", ATTR_TEXT, ROLE_NOBODY, .render = render_progress, .changes = true,
         .index = true, .help = "part done, bytes where it counts bytes"},
        {"started", ATTR_TEXT, ROLE_NOBODY, .render = render_started, .help = "when"},
        {"eta", ATTR_TEXT, ROLE_NOBODY, .render = render_eta, .changes = true,
         .help = "seconds left, as far as anyone can tell"},
        {"host", ATTR_TEXT, ROLE_NOBODY, .help = "host that runs it"},
        {"epoch", ATTR_NUMBER, ROLE_NOBODY, .help = "start of the daemon that ran it last"},
        {"deadline", ATTR_NUMBER, ROLE_NOBODY, .help = "when it fails, seconds since 1970"},
        {"ended", ATTR_NUMBER, ROLE_NOBODY, .help = "when it ended, seconds since 1970; 0: not yet"},
        {"target_no", ATTR_NUMBER, ROLE_NOBODY, .hidden = true, .help = "its number"},
        {"turn", ATTR_NUMBER, ROLE_NOBODY, .hidden = true, .help = "target's version when asked"},
        {"placed", ATTR_TEXT, ROLE_NOBODY, .hidden = true, .help = "see why"},
        {"cancel", ATTR_BOOL, ROLE_NOBODY, .hidden = true, .help = "its host is to cancel it"},
        {"args", ATTR_TEXT, ROLE_NOBODY, .hidden = true, .help = "arguments"},
};

static void render_why(struct control *c, const struct object *o, struct buf *out)
{
        buf_addstr(out, object_str(o, "placed"));
}

static const struct file_def files[] = {
        {"why", FILE_TEXT, ROLE_NOBODY, .render = render_why,
         .help = "of a start: why this host and none of the others, a line each"},
};

static const struct verb_def verbs[] = {
        {"cancel", "", ROLE_MEMBER, STATE(QUEUED) | STATE(RUNNING), "ask it to stop; its target "
         "goes back to what it was", job_cancel},
};

static const struct state_def states[] = {
        {"queued", .transient = true, .help = "stored, not begun"},
        {"running", .transient = true, .help = "at work, or waiting to go on"},
        {"done", .terminal = true, .help = "ended well"},
        {"failed", .terminal = true, .help = "ended badly: read its error"},
        {"cancelled", .terminal = true, .help = "ended on request"},
};

const struct kind kind_job = {
        .name = "job",
        .plural = "jobs",
        .help = "Long work: progress, errors, cancel.  The last ended ones are kept a while.",
        .schema = 1,
        .creator = ROLE_NOBODY,
        .attrs = attrs,
        .nattrs = ARRAY_SIZE(attrs),
        .files = files,
        .nfiles = ARRAY_SIZE(files),
        .verbs = verbs,
        .nverbs = ARRAY_SIZE(verbs),
        .states = states,
        .nstates = ARRAY_SIZE(states),
};
