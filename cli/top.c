/* strato top: the guests and the jobs, from the tree's own index files. */
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>

#include "cli/cli.h"
#include "cli/mount.h"
#include "cli/tree.h"
#include "common/buf.h"
#include "common/clock.h"
#include "common/macro.h"
#include "common/size.h"

enum { PROBE_MS = 5000, EVERY_MS = 2000 };

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

int verb_top(struct cloud *c, struct err **e)
{
        if (mount_probe(c->mount, PROBE_MS) != MOUNT_OK) {
                err_set(e, -ENOTCONN, "no cloud answers on '%s'", c->mount);
                return err_hint(e, "strato up");
        }
        for (;;) {
                _cleanup_buf_ struct buf out = {};
                char now[CLOCK_TEXT_MAX];
                int n, r;

                n = fill(c, "instances", instance_row, &out, e);
                r = n < 0 ? n : fill(c, "jobs", job_row, &out, e);
                if (r < 0)
                        return r;
                if (!c->once)
                        printf("\033[H\033[2J%s  %s  (Ctrl-C ends)\n\n", c->mount,
                               clock_format(now, clock_now()));
                fputs(n == 0 ? "no instances\n" : "", stdout);
                fputs(buf_str(&out), stdout);
                fflush(stdout);
                if (c->once)
                        return STATUS_OK;
                poll(NULL, 0, EVERY_MS);
        }
}
