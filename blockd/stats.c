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
        s->batched++;
        s->batch[op].ops++;
        s->batch[op].bytes += bytes;
        set(&s->sum.in_flight, s->sum.in_flight + 1);
}

static void leave(struct stats *s, enum stats_op op, uint64_t bytes)
{
        s->batched--;
        s->batch[op].ops--;
        s->batch[op].bytes -= bytes;
}

void stats_cancel(struct stats *s, enum stats_op op, uint64_t bytes)
{
        leave(s, op, bytes);
        set(&s->sum.in_flight, s->sum.in_flight - 1);
        s->begin = 0;
}

int64_t stats_fly(struct stats *s, enum stats_op op, uint64_t bytes)
{
        leave(s, op, bytes);
        return s->begin;
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

static void count(struct stats_count *c, uint64_t ops, uint64_t bytes, int64_t usec)
{
        const uint64_t each = MAX(usec, INT64_C(0));
        const unsigned b = bucket(each);

        set(&c->ops, c->ops + ops);
        set(&c->bytes, c->bytes + bytes);
        set(&c->usec, c->usec + ops * each);
        set(&c->latency[b], c->latency[b] + ops);
}

void stats_land(struct stats *s, enum stats_op op, uint64_t bytes, int64_t usec, bool failed)
{
        struct stats_count *c = &s->sum.op[op];

        count(c, 1, failed ? 0 : bytes, usec);
        if (failed)
                set(&c->errors, c->errors + 1);
        set(&s->sum.in_flight, s->sum.in_flight - 1);
}

void stats_end(struct stats *s)
{
        int64_t usec;

        if (s->batched > 0) {
                usec = clock_mono() - s->begin;
                for (unsigned i = 0; i < STATS_OPS; i++) {
                        if (s->batch[i].ops == 0)
                                continue;
                        count(&s->sum.op[i], s->batch[i].ops, s->batch[i].bytes, usec);
                        s->batch[i].ops = s->batch[i].bytes = 0;
                }
                set(&s->sum.in_flight, s->sum.in_flight - s->batched);
                s->batched = 0;
        }
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
