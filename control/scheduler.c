#include "control/scheduler.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "common/macro.h"
#include "common/size.h"

/* More than all weights together, so that a group's wish comes before them. */
enum { GROUP_WEIGHT = 10000, WEIGHT = 1000 };

enum sched_policy sched_policy(const char *text)
{
        static const char *const names[] = {
                [SCHED_NO_GROUP] = "",
                [SCHED_AFFINITY] = "affinity",
                [SCHED_ANTI_AFFINITY] = "anti-affinity",
                [SCHED_SOFT_AFFINITY] = "soft-affinity",
                [SCHED_SOFT_ANTI_AFFINITY] = "soft-anti-affinity",
        };

        for (unsigned i = 0; text && i < ARRAY_SIZE(names); i++)
                if (streq(names[i], text))
                        return i;
        return SCHED_NO_GROUP;
}

/* --- filters --------------------------------------------------------------------------------- */

/* The first word of `wanted` that is not among the words of `have`; NULL: all are there. */
static const char *missing_word(const char *wanted, const char *have, size_t *ret_len)
{
        for (const char *p = wanted; *(p += strspn(p, " ")); p += *ret_len) {
                bool found = false;

                *ret_len = strcspn(p, " ");
                for (const char *q = have; !found && *(q += strspn(q, " "));) {
                        size_t len = strcspn(q, " ");

                        found = len == *ret_len && memcmp(p, q, len) == 0;
                        q += len;
                }
                if (!found)
                        return p;
        }
        return NULL;
}

/* What may be given away of a capacity. */
static uint64_t limit(uint64_t capacity, unsigned percent)
{
        return capacity / SCHED_PERCENT * percent +
               capacity % SCHED_PERCENT * percent / SCHED_PERCENT;
}

static uint64_t left(uint64_t lim, uint64_t used)
{
        return lim > used ? lim - used : 0;
}

uint64_t sched_left(uint64_t capacity, unsigned percent, uint64_t used)
{
        return left(limit(capacity, percent), used);
}

/* Whether h may have the guest; if not, why gets the reason. */
static bool fits(const struct sched_want *w, const struct sched_host *h, struct buf *why)
{
        uint64_t vcpus = sched_left(h->vcpus, h->vcpus_percent, h->vcpus_used);
        uint64_t memory = sched_left(h->memory, h->memory_percent, h->memory_used);
        char a[SIZE_TEXT_MAX], b[SIZE_TEXT_MAX];
        const char *word;
        size_t len;

        for (size_t i = 0; i < w->nbinds; i++)
                if (!streq(w->binds[i].host, h->name)) {
                        buf_printf(why, "volume '%s' is local to %s", w->binds[i].volume,
                                   w->binds[i].host);
                        return false;
                }
        if (!h->up)
                buf_printf(why, "it is %s", h->state);
        else if (*w->zone && !streq(w->zone, h->zone))
                buf_printf(why, "it is in zone '%s', not '%s'", h->zone, w->zone);
        else if ((word = missing_word(w->features, h->features, &len)))
                buf_printf(why, "it has no '%.*s'", (int)len, word);
        else if (w->policy == SCHED_AFFINITY && w->members && !h->members)
                buf_addstr(why, "its group is elsewhere");
        else if (w->policy == SCHED_ANTI_AFFINITY && h->members)
                buf_addstr(why, "another of its group is there");
        else if (w->vcpus > vcpus)
                buf_printf(why, "vcpus: %" PRIu64 " wanted, %" PRIu64 " left", w->vcpus, vcpus);
        else if (w->memory > memory)
                buf_printf(why, "memory: %s wanted, %s left", size_human(a, w->memory),
                           size_human(b, memory));
        else
                return true;
        return false;
}

/* --- weights --------------------------------------------------------------------------------- */

/* Thousandths of what may be given away that are free once the guest is there. */
static int64_t free_part(uint64_t capacity, unsigned percent, uint64_t used, uint64_t wanted)
{
        uint64_t lim = limit(capacity, percent);

        return lim ? (int64_t)((double)left(lim, used + wanted) / lim * WEIGHT) : 0;
}

static int64_t score(const struct sched_want *w, const struct sched_host *h, struct buf *why)
{
        int64_t memory = free_part(h->memory, h->memory_percent, h->memory_used, w->memory);
        int64_t vcpus = free_part(h->vcpus, h->vcpus_percent, h->vcpus_used, w->vcpus);
        int64_t group = 0, sum;

        if (w->pack) {
                memory = WEIGHT - memory;
                vcpus = WEIGHT - vcpus;
        }
        if (w->policy == SCHED_SOFT_AFFINITY)
                group = (int64_t)GROUP_WEIGHT * h->members;
        else if (w->policy == SCHED_SOFT_ANTI_AFFINITY)
                group = -(int64_t)GROUP_WEIGHT * h->members;
        sum = memory + vcpus + group;
        buf_printf(why, "score %" PRId64 ": memory %" PRId64 ", vcpus %" PRId64, sum, memory,
                   vcpus);
        if (group)
                buf_printf(why, ", group %" PRId64, group);
        return sum;
}

static bool better(const struct sched_host *a, int64_t sa, const struct sched_host *b, int64_t sb)
{
        if (sa != sb)
                return sa > sb;
        if (a->guests != b->guests)
                return a->guests < b->guests;
        return strcmp(a->name, b->name) < 0;
}

int sched_place(const struct sched_want *w, const struct sched_host *v, size_t n, struct buf *why,
                struct err **e)
{
        _cleanup_buf_ struct buf rest = {}, chosen = {};
        int64_t best_score = 0;
        int best = -1;

        for (size_t i = 0; i < n; i++) {
                _cleanup_buf_ struct buf line = {};
                int64_t s;

                if (!fits(w, &v[i], &line)) {
                        buf_printf(&rest, "%s: no: %s\n", v[i].name, buf_str(&line));
                        continue;
                }
                s = score(w, &v[i], &line);
                if (best >= 0 && !better(&v[i], s, &v[best], best_score)) {
                        buf_printf(&rest, "%s: %s\n", v[i].name, buf_str(&line));
                        continue;
                }
                if (best >= 0)
                        buf_printf(&rest, "%s: %s\n", v[best].name, buf_str(&chosen));
                buf_clear(&chosen);
                buf_addstr(&chosen, buf_str(&line));
                best_score = s;
                best = i;
        }
        if (best >= 0)
                buf_printf(why, "%s: chosen, %s\n", v[best].name, buf_str(&chosen));
        buf_addstr(why, buf_str(&rest));
        if (best >= 0)
                return best;
        return err_set(e, -ENOSPC, "no host may have it%s%.*s", n ? ": " : "",
                       (int)strcspn(buf_str(&rest), "\n"), buf_str(&rest));
}
