/* strato top: the guests, the volumes at work and the jobs, from the tree's own files. */
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>

#include "cli/cli.h"
#include "cli/mount.h"
#include "cli/top.h"
#include "cli/tree.h"
#include "common/buf.h"
#include "common/clock.h"
#include "common/macro.h"
#include "common/size.h"

enum { PROBE_MS = 5000, EVERY_MS = 2000, WARM_UP_MS = 1500 };

struct table {
        const char *tenant;
        struct buf *out;
        unsigned rows;
};

static int instance_row(void *arg, const struct row *row)
{
        struct table *t = arg;
        char flavor[NAME_MAX + 1], host[NAME_MAX + 1], vcpus[24], memory[24], size[SIZE_TEXT_MAX];
        uint64_t bytes;

        row_fact(row, "flavor", flavor, sizeof(flavor));
        row_fact(row, "host", host, sizeof(host));
        row_fact(row, "vcpus", vcpus, sizeof(vcpus));
        row_fact(row, "memory", memory, sizeof(memory));
        bytes = strtoull(memory, NULL, 10);
        if (t->rows++ == 0)
                buf_printf(t->out, "%-16s %-24s %-10s %-10s %5s %8s  %s\n", "TENANT", "INSTANCE",
                           "STATE", "FLAVOR", "VCPUS", "MEMORY", "HOST");
        buf_printf(t->out, "%-16s %-24s %-10s %-10s %5s %8s  %s\n", t->tenant, row->name,
                   row->state, *flavor ? flavor : "-", *vcpus ? vcpus : "-",
                   bytes ? size_human(size, bytes) : "-", *host ? host : "-");
        return 0;
}

static int job_row(void *arg, const struct row *row)
{
        struct table *t = arg;
        char op[64], target[512], progress[32];

        if (!streq(row->state, "running") && !streq(row->state, "queued"))
                return 0;
        row_fact(row, "op", op, sizeof(op));
        row_fact(row, "target", target, sizeof(target));
        row_fact(row, "progress", progress, sizeof(progress));
        if (t->rows++ == 0)
                buf_printf(t->out, "\n%-16s %-24s %-10s %-10s  %s\n", "TENANT", "JOB", "STATE",
                           "PROGRESS", "TARGET");
        buf_printf(t->out, "%-16s %-24s %-10s %-10s  %s\n", t->tenant, op, row->state,
                   *progress ? progress : "-", target);
        return 0;
}

static int fill(const struct cloud *c, const char *collection,
                int (*each)(void *arg, const struct row *row), struct buf *out, struct err **e)
{
        _cleanup_(tenants_free) char **tenants = NULL;
        struct table t = {.out = out};
        int r;

        r = tree_tenants(c, &tenants, e);
        for (char **p = tenants; r == 0 && *p; p++) {
                t.tenant = *p;
                r = tree_each(c, *p, collection, each, &t, e);
                if (r == -ENOENT || r == -EACCES) { /* gone meanwhile, or not ours to see */
                        r = 0;
                        if (e)
                                *e = err_free(*e);
                }
        }
        return r < 0 ? r : (int)t.rows;
}

/* The first look has figures taken, the second knows them, the third what happened in between. */
static int warm_up(struct io_table *io, struct cloud *c, struct err **e)
{
        int r = 0;

        for (int i = 0; i < 2 && r == 0; i++) {
                _cleanup_buf_ struct buf out = {};

                r = io_table_fill(io, c, &out, e);
                if (r < 0 || io->volumes == 0)
                        return r;
                r = 0;
                poll(NULL, 0, WARM_UP_MS);
        }
        return r;
}

static int show(struct cloud *c, struct io_table *io, struct err **e)
{
        _cleanup_buf_ struct buf out = {};
        char now[CLOCK_TEXT_MAX];
        int n, r;

        n = fill(c, "instances", instance_row, &out, e);
        r = n < 0 ? n : io_table_fill(io, c, &out, e);
        if (r >= 0)
                r = fill(c, "jobs", job_row, &out, e);
        if (r < 0)
                return r;
        if (!c->once)
                printf("\033[H\033[2J%s  %s  (Ctrl-C ends)\n\n", c->mount,
                       clock_format(now, clock_now()));
        fputs(n == 0 ? "no instances\n" : "", stdout);
        fputs(buf_str(&out), stdout);
        fflush(stdout);
        return 0;
}

int verb_top(struct cloud *c, struct err **e)
{
        struct io_table io = {};
        int r = 0;

        if (mount_probe(c->mount, PROBE_MS) != MOUNT_OK) {
                err_set(e, -ENOTCONN, "no cloud answers on '%s'", c->mount);
                return err_hint(e, "strato up");
        }
        if (c->once)
                r = warm_up(&io, c, e);
        while (r == 0) {
                r = show(c, &io, e);
                if (r < 0 || c->once)
                        break;
                poll(NULL, 0, EVERY_MS);
        }
        io_table_done(&io);
        return r < 0 ? r : STATUS_OK;
}
