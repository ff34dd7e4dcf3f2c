/* Which backups are kept: "daily:7,weekly:4" is the newest of each of the last 7 days that have
 * any, and of each of the last 4 weeks. */
#include "control/jobs/jobs.h"

enum { RULES = 6, COUNT_MAX = 10000 };

static const struct {
        const char *name;
        enum { LAST, HOURLY, DAILY, WEEKLY, MONTHLY, YEARLY } unit;
} units[RULES] = {{"last", LAST},     {"hourly", HOURLY},   {"daily", DAILY},
                  {"weekly", WEEKLY}, {"monthly", MONTHLY}, {"yearly", YEARLY}};

/* One rule at p, len bytes; gives its unit, or -1. */
static int rule_parse(const char *p, size_t len, unsigned *ret_count)
{
        size_t name = strcspn(p, ":");
        unsigned long n;
        char *end;

        if (name >= len || p[name + 1] < '0' || p[name + 1] > '9')
                return -1;
        n = strtoul(p + name + 1, &end, 10);
        if (end != p + len || n == 0 || n > COUNT_MAX)
                return -1;
        *ret_count = n;
        for (int i = 0; i < RULES; i++)
                if (strlen(units[i].name) == name && memcmp(p, units[i].name, name) == 0)
                        return i;
        return -1;
}

int keep_check(const char *rules, struct err **e)
{
        for (const char *p = rules;; p++) {
                size_t len = strcspn(p, ",");
                unsigned n;

                if (rule_parse(p, len, &n) < 0) {
                        err_at(e, -EINVAL, rules, strlen(rules), p - rules, len,
                               "expected UNIT:COUNT[,...]");
                        err_hint(e, -EINVAL, "units: last hourly daily weekly monthly yearly");
                        return -EINVAL;
                }
                p += len;
                if (!*p)
                        return 0;
        }
}

/* A number that is the same for times of the same hour, day, ...; UTC, weeks begin on Monday. */
static int64_t period(int unit, int64_t usec, size_t i)
{
        time_t sec = usec / 1000000, day = sec / 86400;
        struct tm tm;

        switch (unit) {
        case LAST:
                return i;
        case HOURLY:
                return sec / 3600;
        case DAILY:
                return day;
        case WEEKLY:
                return (day + 3) / 7; /* 1 January 1970 was a Thursday */
        default:
                gmtime_r(&sec, &tm);
                return unit == YEARLY ? tm.tm_year : tm.tm_year * 12 + tm.tm_mon;
        }
}

void keep_mark(const char *rules, const int64_t *taken, size_t n, bool *keep)
{
        memset(keep, !*rules, n * sizeof(*keep));
        for (const char *p = rules; *p;) {
                size_t len = strcspn(p, ",");
                unsigned count, kept = 0;
                int unit = rule_parse(p, len, &count);
                int64_t last = INT64_MIN;

                for (size_t i = 0; unit >= 0 && i < n && kept < count; i++) {
                        int64_t now = period(units[unit].unit, taken[i], i);

                        if (now == last)
                                continue;
                        last = now;
                        keep[i] = true;
                        kept++;
                }
                p += len + (p[len] == ',');
        }
}

static int newest_first(const void *a, const void *b)
{
        uint64_t x = object_num(*(struct object *const *)a, "taken_at");
        uint64_t y = object_num(*(struct object *const *)b, "taken_at");

        return x > y ? -1 : x < y;
}

int backup_expire(struct txn *t, struct object *volume, struct err **e)
{
        struct collection *l = model_collection(t->c, volume->tenant, &kind_backup);
        struct object **v = xcalloc(l->n + 1, sizeof(*v));
        int64_t *taken = xcalloc(l->n + 1, sizeof(*taken));
        bool *keep = xcalloc(l->n + 1, sizeof(*keep));
        size_t n = 0;

        for (size_t i = 0; i < l->n; i++)
                if (l->v[i]->state == BACKUP_AVAILABLE && !l->v[i]->nameless &&
                    !object_num(l->v[i], "protected") &&
                    object_num(l->v[i], "volume_no") == volume->no)
                        v[n++] = l->v[i];
        if (n)
                qsort(v, n, sizeof(*v), newest_first);
        for (size_t i = 0; i < n; i++)
                taken[i] = object_num(v[i], "taken_at");
        keep_mark(object_str(volume, "keep"), taken, n, keep);
        for (size_t i = 0; i < n; i++) {
                if (keep[i])
                        continue;
                txn_event(t, v[i], "expired");
                if (backup_remove(t, v[i], NULL) == -EBUSY)
                        txn_event(t, v[i], "in use: it expires later");
        }
        free(v);
        free(taken);
        free(keep);
        return 0;
}
