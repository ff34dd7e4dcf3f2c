#include "cli/top.h"

#include <time.h>
#include <uthash.h>

#include "cli/tree.h"
#include "common/fileio.h"
#include "common/macro.h"
#include "common/name.h"
#include "common/size.h"

enum { TEXT_MAX = 16 << 10 };

struct figures {
        int64_t as_of; /* usec */
        uint64_t in_flight, read_ops, write_ops, read_bytes, write_bytes, usec;
};

struct io_seen {
        UT_hash_handle hh;
        char id[ID_TEXT_SIZE];
        struct figures last;
        bool known; /* last is of blockd, not of before the first look */
        bool rated; /* the rates are */
        double reads, writes, read_bytes, write_bytes, usec; /* a second; usec: mean of one */
};

static int64_t parse_time(const char *text)
{
        struct tm tm = {};
        const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);

        return end ? timegm(&tm) * INT64_C(1000000) + (int64_t)(strtod(end, NULL) * 1e6) : 0;
}

static uint64_t number(const char *text, const char *name)
{
        size_t n = strlen(name);

        for (const char *p = text; p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL)
                if (strncmp(p, name, n) == 0 && p[n] == ' ')
                        return strtoull(p + n + 1, NULL, 10);
        return 0;
}

static int read_figures(const struct cloud *c, const char *tenant, const char *volume,
                        struct figures *ret)
{
        _cleanup_free_ char *path =
                path_printf("%s/tenants/%s/volumes/%s/stats/all", c->mount, tenant, volume);
        _cleanup_free_ char *text = NULL;
        int r = path ? file_read(path, TEXT_MAX, &text, NULL, NULL) : -ENOMEM;

        if (r < 0)
                return r;
        *ret = (struct figures){
                .as_of = strncmp(text, "as_of ", 6) == 0 ? parse_time(text + 6) : 0,
                .in_flight = number(text, "in_flight"),
                .read_ops = number(text, "read_ops"),
                .write_ops = number(text, "write_ops"),
                .read_bytes = number(text, "read_bytes"),
                .write_bytes = number(text, "write_bytes"),
                .usec = number(text, "read_usec") + number(text, "write_usec"),
        };
        return 0;
}

static struct io_seen *seen_get(struct io_table *t, const char *id)
{
        struct io_seen *s;

        HASH_FIND_STR(t->seen, id, s);
        if (s || strlen(id) >= sizeof(s->id) || !(s = calloc(1, sizeof(*s))))
                return s;
        strcpy(s->id, id);
        HASH_ADD_STR(t->seen, id, s);
        return s;
}

/* What happened between the last figures and these.  blockd counts anew when it was restarted. */
static void rate(struct io_seen *s, const struct figures *now)
{
        const struct figures *was = &s->last;
        double seconds = (double)(now->as_of - was->as_of) / 1e6;
        uint64_t ops = now->read_ops + now->write_ops - was->read_ops - was->write_ops;

        if (s->known && now->as_of == was->as_of)
                return;
        s->rated = s->known && seconds > 0 && now->read_ops >= was->read_ops &&
                   now->write_ops >= was->write_ops && now->usec >= was->usec;
        if (s->rated) {
                s->reads = (double)(now->read_ops - was->read_ops) / seconds;
                s->writes = (double)(now->write_ops - was->write_ops) / seconds;
                s->read_bytes = (double)(now->read_bytes - was->read_bytes) / seconds;
                s->write_bytes = (double)(now->write_bytes - was->write_bytes) / seconds;
                s->usec = ops ? (double)(now->usec - was->usec) / (double)ops : 0;
        }
        s->last = *now;
        s->known = now->as_of > 0;
}

struct walk {
        struct io_table *table;
        const struct cloud *cloud;
        const char *tenant;
        struct buf *out;
        int rows;
};

static void print(struct walk *w, const char *name, const struct io_seen *s)
{
        char reads[SIZE_TEXT_MAX], writes[SIZE_TEXT_MAX];

        if (w->rows++ == 0)
                buf_printf(w->out, "\n%-16s %-24s %9s %9s %9s %9s %9s %6s\n", "TENANT", "VOLUME",
                           "READS/S", "WRITES/S", "READ/S", "WRITTEN/S", "LATENCY", "FLYING");
        buf_printf(w->out, "%-16s %-24s ", w->tenant, name);
        if (s->rated)
                buf_printf(w->out, "%9.0f %9.0f %9s %9s %7.0fus", s->reads, s->writes,
                           size_human(reads, (uint64_t)s->read_bytes),
                           size_human(writes, (uint64_t)s->write_bytes), s->usec);
        else
                buf_printf(w->out, "%9s %9s %9s %9s %9s", "-", "-", "-", "-", "-");
        buf_printf(w->out, " %6llu\n", (unsigned long long)s->last.in_flight);
}

static int volume_row(void *arg, const struct row *row)
{
        struct walk *w = arg;
        struct figures now;
        struct io_seen *s;

        if (streq(row->state, "draft") || streq(row->state, "creating") ||
            read_figures(w->cloud, w->tenant, row->name, &now) < 0)
                return 0;
        s = seen_get(w->table, row->id);
        if (!s)
                return -ENOMEM;
        w->table->volumes++;
        rate(s, &now);
        if (streq(row->state, "in-use") || s->last.in_flight ||
            (s->rated && s->reads + s->writes > 0))
                print(w, row->name, s);
        return 0;
}

int io_table_fill(struct io_table *t, const struct cloud *c, struct buf *out, struct err **e)
{
        _cleanup_(tenants_free) char **tenants = NULL;
        struct walk w = {.table = t, .cloud = c, .out = out};
        int r = tree_tenants(c, &tenants, e);

        t->volumes = 0;
        for (char **p = tenants; r == 0 && *p; p++) {
                w.tenant = *p;
                r = tree_each(c, *p, "volumes", volume_row, &w, e);
                if (r == -ENOENT || r == -EACCES) { /* gone meanwhile, or not ours to see */
                        r = 0;
                        if (e)
                                *e = err_free(*e);
                }
        }
        return r < 0 ? r : w.rows;
}

void io_table_done(struct io_table *t)
{
        struct io_seen *s, *tmp;

        HASH_ITER (hh, t->seen, s, tmp) {
                HASH_DEL(t->seen, s);
                free(s);
        }
}
