#include "control/kinds/volume-stats.h"

static const char *const ops[VOLUME_REQS] = {
        [VOLUME_REQ_READ] = "read",  [VOLUME_REQ_WRITE] = "write", [VOLUME_REQ_FLUSH] = "flush",
        [VOLUME_REQ_TRIM] = "trim",  [VOLUME_REQ_ZERO] = "zero",   [VOLUME_REQ_STATUS] = "status",
        [VOLUME_REQ_CACHE] = "cache"};

void volume_stats_number(struct control *c, const struct object *o, size_t at, struct buf *out)
{
        struct volume_stats v;
        uint64_t n;

        stats_look(c, o, &v);
        memcpy(&n, (const char *)&v + at, sizeof(n));
        buf_printf(out, "%" PRIu64 "\n", n);
}

static void render_time(const char *name, int64_t usec, struct buf *out)
{
        char text[CLOCK_TEXT_MAX];

        buf_printf(out, "%s%s\n", name, clock_format(text, usec));
}

static void render_all(const struct volume_stats *v, int64_t as_of, struct buf *out)
{
        render_time("as_of ", as_of, out);
        render_time("since ", v->since, out);
        buf_printf(out, "in_flight %" PRIu64 "\n", v->in_flight);
        for (unsigned i = 0; i < VOLUME_REQS; i++) {
                const struct volume_req_stats *s = &v->op[i];

                buf_printf(out, "%s_ops %" PRIu64 "\n%s_bytes %" PRIu64 "\n", ops[i], s->ops,
                           ops[i], s->bytes);
                buf_printf(out, "%s_errors %" PRIu64 "\n%s_usec %" PRIu64 "\n", ops[i], s->errors,
                           ops[i], s->usec);
        }
}

static void render_latency(const struct volume_stats *v, struct buf *out)
{
        for (unsigned i = 0; i < VOLUME_REQS; i++)
                for (unsigned k = 0; k < VOLUME_LATENCIES; k++) {
                        uint64_t n = v->op[i].latency[k];

                        if (n && k < VOLUME_LATENCIES - 1)
                                buf_printf(out, "%s %u %" PRIu64 "\n", ops[i], 1u << k, n);
                        else if (n)
                                buf_printf(out, "%s max %" PRIu64 "\n", ops[i], n);
                }
}

void volume_stats_text(struct control *c, const struct object *o, size_t at, struct buf *out)
{
        struct volume_stats v;
        int64_t as_of = stats_look(c, o, &v);

        switch ((enum volume_stats_text)at) {
        case STATS_ALL:
                render_all(&v, as_of, out);
                return;
        case STATS_LATENCY:
                render_latency(&v, out);
                return;
        case STATS_SINCE:
                render_time("", v.since, out);
                return;
        case STATS_AS_OF:
                render_time("", as_of, out);
                return;
        }
}
