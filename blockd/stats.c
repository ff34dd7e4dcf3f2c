#include "blockd/stats.h"

#include "common/clock.h"
#include "common/macro.h"

const char *const stats_names[STATS_OPS] = {
        [STATS_READ] = "read",   [STATS_WRITE] = "write", [STATS_FLUSH] = "flush",
        [STATS_TRIM] = "trim",   [STATS_ZERO] = "zero",   [STATS_STATUS] = "status",
        [STATS_CACHE] = "cache",
};

static void set(uint64_t *p, uint64_t v)
{
        __atomic_store_n(p, v, __ATOMIC_RELAXED);
}

static uint64_t get(const uint64_t *p)
{
        return __atomic_load_n(p, __ATOMIC_RELAXED);
}

void stats_start(struct stats *s, enum stats_op op, uint64_t bytes)
{
        if (!s->begin)
                s->begin = clock_mono();
        s->batch[op].ops++;
        s->batch[op].bytes += bytes;
        set(&s->sum.in_flight, s->sum.in_flight + 1);
}

void stats_cancel(struct stats *s, enum stats_op op, uint64_t bytes)
{
        s->batch[op].ops--;
        s->batch[op].bytes -= bytes;
        set(&s->sum.in_flight, 0);
        s->begin = 0;
}

void stats_failed(struct stats *s, enum stats_op op, uint64_t bytes)
{
        s->batch[op].bytes -= bytes;
        set(&s->sum.op[op].errors, s->sum.op[op].errors + 1);
}

static unsigned bucket(uint64_t usec)
{
        unsigned bits = usec ? 64 - __builtin_clzll(usec) : 0;

        return MIN(bits, STATS_BUCKETS - 1u);
}

void stats_end(struct stats *s)
{
        uint64_t usec;
        unsigned b;

        if (!s->begin)
                return;
        usec = MAX(clock_mono() - s->begin, INT64_C(0));
        b = bucket(usec);
        for (unsigned i = 0; i < STATS_OPS; i++) {
                struct stats_count *c = &s->sum.op[i];
                uint64_t n = s->batch[i].ops;

                if (n == 0)
                        continue;
                set(&c->ops, c->ops + n);
                set(&c->bytes, c->bytes + s->batch[i].bytes);
                set(&c->usec, c->usec + n * usec);
                set(&c->latency[b], c->latency[b] + n);
                s->batch[i].ops = s->batch[i].bytes = 0;
        }
        set(&s->sum.in_flight, 0);
        s->begin = 0;
}

void stats_add(struct stats_sum *to, const struct stats_sum *s)
{
        for (unsigned i = 0; i < STATS_OPS; i++) {
                to->op[i].ops += get(&s->op[i].ops);
                to->op[i].bytes += get(&s->op[i].bytes);
                to->op[i].errors += get(&s->op[i].errors);
                to->op[i].usec += get(&s->op[i].usec);
                for (unsigned k = 0; k < STATS_BUCKETS; k++)
                        to->op[i].latency[k] += get(&s->op[i].latency[k]);
        }
        to->in_flight += get(&s->in_flight);
}
