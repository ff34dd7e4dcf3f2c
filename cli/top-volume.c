/* The volumes of `strato top`, from the files of their stats folders. */
#include "cli/top.h"

#include <time.h>
#include <uthash.h>

#include "cli/tree.h"
#include "common/fileio.h"
#include "common/macro.h"
#include "common/name.h"
#include "common/size.h"

/* Guests' volumes are looked at, all of them; of a tenant's others, so many. */
enum { TEXT_MAX = 16 << 10, IDLE_MAX = 1000 };

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

static struct io_seen *seen_get(struct top *t, const char *id)
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
        struct top *top;
        const char *tenant;
        unsigned idle; /* volumes without a guest that were looked at */
};

static int add(struct walk *w, const char *name, const struct io_seen *s)
{
        struct cell *c = table_add(&w->top->tables[TOP_VOLUMES]);

        if (!c)
                return -ENOMEM;
        cell_text(&c[0], w->tenant);
        cell_text(&c[1], name);
        if (s->rated) {
                c[2].n = s->reads;
                c[3].n = s->writes;
                c[4].n = s->read_bytes;
                c[5].n = s->write_bytes;
                c[6].n = s->usec;
                w->top->reads += s->reads;
                w->top->writes += s->writes;
                w->top->read_bytes += s->read_bytes;
                w->top->write_bytes += s->write_bytes;
        }
        c[7].n = (double)s->last.in_flight;
        return 0;
}

static int volume_row(void *arg, const struct row *row)
{
        bool guest = streq(row->state, "in-use");
        struct walk *w = arg;
        struct figures now;
        struct io_seen *s;

        if (streq(row->state, "draft") || streq(row->state, "creating") ||
            (!guest && w->idle++ >= IDLE_MAX) ||
            read_figures(w->top->cloud, w->tenant, row->name, &now) < 0)
                return 0;
        s = seen_get(w->top, row->id);
        if (!s)
                return -ENOMEM;
        w->top->volumes++;
        rate(s, &now);
        if (guest || s->last.in_flight || (s->rated && s->reads + s->writes > 0))
                return add(w, row->name, s);
        return 0;
}

int top_volumes(struct top *top, struct err **e)
{
        _cleanup_(tenants_free) char **tenants = NULL;
        int r = tree_tenants(top->cloud, &tenants, e);

        top->volumes = 0;
        top->reads = top->writes = top->read_bytes = top->write_bytes = 0;
        for (char **p = tenants; r == 0 && *p; p++) {
                struct walk w = {.top = top, .tenant = *p};

                r = tree_each(top->cloud, *p, "volumes", volume_row, &w, e);
                if (r == -ENOENT || r == -EACCES) { /* gone meanwhile, or not ours to see */
                        r = 0;
                        if (e)
                                *e = err_free(*e);
                }
        }
        return r;
}

void top_volumes_done(struct top *top)
{
        struct io_seen *s, *tmp;

        HASH_ITER (hh, top->seen, s, tmp) {
                HASH_DEL(top->seen, s);
                free(s);
        }
}
