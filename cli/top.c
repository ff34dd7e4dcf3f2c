/* strato top: the hosts, the tenants, the guests, the volumes at work and the jobs. */
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>
#include <uthash.h>

#include "cli/cli.h"
#include "cli/mount.h"
#include "cli/top.h"
#include "cli/tree.h"
#include "common/clock.h"
#include "common/fileio.h"
#include "common/macro.h"

enum { PROBE_MS = 5000, EVERY_MS = 2000, WARM_UP_MS = 1500, USAGE_MAX = 16 << 10 };

const struct panel top_panels[TOP_PANELS] = {
        [TOP_HOSTS] = {"hosts",
                       {{"HOST", "name", 16, COLUMN_TEXT},
                        {"STATE", "state", 10, COLUMN_TEXT},
                        {"GUESTS", "guests", 6, COLUMN_COUNT},
                        {"VCPUS", "vcpus", 6, COLUMN_COUNT},
                        {"CPUS", "cpus", 6, COLUMN_COUNT},
                        {"USED", "memory_used", 8, COLUMN_BYTES},
                        {"MEMORY", "memory", 8, COLUMN_BYTES},
                        {"FREE", "free", 9, COLUMN_BYTES}}},
        [TOP_TENANTS] = {"tenants",
                         {{"TENANT", "name", 16, COLUMN_TEXT},
                          {"GUESTS", "instances", 7, COLUMN_COUNT},
                          {"VCPUS", "vcpus", 6, COLUMN_COUNT},
                          {"MEMORY", "memory", 8, COLUMN_BYTES},
                          {"VOLUMES", "volumes", 7, COLUMN_COUNT},
                          {"DISKS", "volume_size", 8, COLUMN_BYTES},
                          {"SNAPSHOTS", "snapshots", 9, COLUMN_COUNT},
                          {"IMAGES", "images", 7, COLUMN_COUNT}}},
        [TOP_GUESTS] = {"instances",
                        {{"TENANT", "tenant", 14, COLUMN_TEXT},
                         {"INSTANCE", "name", 20, COLUMN_TEXT},
                         {"STATE", "state", 10, COLUMN_TEXT},
                         {"FLAVOR", "flavor", 8, COLUMN_TEXT},
                         {"VCPUS", "vcpus", 5, COLUMN_COUNT},
                         {"MEMORY", "memory", 7, COLUMN_BYTES},
                         {"HOST", "host", 16, COLUMN_TEXT}}},
        [TOP_VOLUMES] = {"volumes",
                         {{"TENANT", "tenant", 16, COLUMN_TEXT},
                          {"VOLUME", "name", 17, COLUMN_TEXT},
                          {"READS/S", "reads", 7, COLUMN_COUNT},
                          {"WRITES/S", "writes", 8, COLUMN_COUNT},
                          {"READ/S", "read_bytes", 7, COLUMN_BYTES},
                          {"WRITE/S", "write_bytes", 7, COLUMN_BYTES},
                          {"LATENCY", "latency_usec", 8, COLUMN_USEC},
                          {"FLY", "in_flight", 3, COLUMN_COUNT}}},
        [TOP_JOBS] = {"jobs",
                      {{"TENANT", "tenant", 16, COLUMN_TEXT},
                       {"JOB", "op", 24, COLUMN_TEXT},
                       {"STATE", "state", 10, COLUMN_TEXT},
                       {"PROGRESS", "progress", 10, COLUMN_TEXT},
                       {"TARGET", "target", 16, COLUMN_TEXT}}},
};

struct host_load {
        UT_hash_handle hh;
        char name[NAME_MAX + 1];
        double guests, vcpus, memory;
};

struct walk {
        struct top *top;
        const char *tenant;
};

static void fact_text(struct cell *c, const struct row *row, const char *key)
{
        char text[CELL_TEXT_MAX];

        cell_text(c, row_fact(row, key, text, sizeof(text)));
}

static void fact_number(struct cell *c, const struct row *row, const char *key)
{
        char text[32];

        if (*row_fact(row, key, text, sizeof(text)))
                c->n = strtod(text, NULL);
}

static int add_load(struct top *top, const char *host, const struct cell *vcpus,
                    const struct cell *memory)
{
        struct host_load *l;

        HASH_FIND_STR(top->loads, host, l);
        if (!l) {
                l = calloc(1, sizeof(*l));
                if (!l)
                        return -ENOMEM;
                snprintf(l->name, sizeof(l->name), "%s", host);
                HASH_ADD_STR(top->loads, name, l);
        }
        l->guests++;
        l->vcpus += isnan(vcpus->n) ? 0 : vcpus->n;
        l->memory += isnan(memory->n) ? 0 : memory->n;
        return 0;
}

static void clear_loads(struct top *top)
{
        struct host_load *l, *tmp;

        HASH_ITER (hh, top->loads, l, tmp) {
                HASH_DEL(top->loads, l);
                free(l);
        }
}

static int guest_row(void *arg, const struct row *row)
{
        struct walk *w = arg;
        struct cell *c = table_add(&w->top->tables[TOP_GUESTS]);

        if (!c)
                return -ENOMEM;
        cell_text(&c[0], w->tenant);
        cell_text(&c[1], row->name);
        cell_text(&c[2], row->state);
        fact_text(&c[3], row, "flavor");
        fact_number(&c[4], row, "vcpus");
        fact_number(&c[5], row, "memory");
        fact_text(&c[6], row, "host");
        w->top->guests++;
        if (!state_has_guest(row->state))
                return 0;
        w->top->running++;
        return c[6].text ? add_load(w->top, c[6].text, &c[4], &c[5]) : 0;
}

static int job_row(void *arg, const struct row *row)
{
        struct walk *w = arg;
        struct cell *c;

        if (!streq(row->state, "running") && !streq(row->state, "queued"))
                return 0;
        c = table_add(&w->top->tables[TOP_JOBS]);
        if (!c)
                return -ENOMEM;
        cell_text(&c[0], w->tenant);
        fact_text(&c[1], row, "op");
        cell_text(&c[2], row->state);
        fact_text(&c[3], row, "progress");
        fact_text(&c[4], row, "target");
        return 0;
}

static int host_row(void *arg, const struct row *row)
{
        struct walk *w = arg;
        struct cell *c = table_add(&w->top->tables[TOP_HOSTS]);
        const struct host_load *l;

        if (!c)
                return -ENOMEM;
        HASH_FIND_STR(w->top->loads, row->name, l);
        cell_text(&c[0], row->name);
        cell_text(&c[1], row->state);
        c[2].n = l ? l->guests : 0;
        c[3].n = l ? l->vcpus : 0;
        fact_number(&c[4], row, "cpus");
        c[5].n = l ? l->memory : 0;
        fact_number(&c[6], row, "memory");
        fact_number(&c[7], row, "free");
        return 0;
}

/* `usage` has a name and a number a line; the columns have those names. */
static int tenant_row(struct top *top, const char *tenant)
{
        _cleanup_free_ char *path = path_printf("%s/tenants/%s/usage", top->cloud->mount, tenant);
        struct table *t = &top->tables[TOP_TENANTS];
        _cleanup_free_ char *text = NULL;
        char *save = NULL;
        struct cell *c;

        if (!path)
                return -ENOMEM;
        if (file_read(path, USAGE_MAX, &text, NULL, NULL) < 0)
                return 0; /* gone meanwhile, or not ours to see */
        c = table_add(t);
        if (!c)
                return -ENOMEM;
        cell_text(&c[0], tenant);
        for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
                char *number = strchr(line, ' ');

                for (unsigned i = 1; number && i < t->columns; i++)
                        if (strncmp(line, t->panel->columns[i].key, number - line) == 0 &&
                            t->panel->columns[i].key[number - line] == '\0')
                                c[i].n = strtod(number, NULL);
        }
        return 0;
}

/* What is gone meanwhile, or is not ours to see, is left out. */
static int forgive(int r, struct err **e)
{
        if (r != -ENOENT && r != -EACCES)
                return r;
        if (e)
                *e = err_free(*e);
        return 0;
}

void top_init(struct top *top, struct cloud *c)
{
        *top = (struct top){.cloud = c};
        for (int i = 0; i < TOP_PANELS; i++)
                top->tables[i].panel = &top_panels[i];
}

int top_look(struct top *top, struct err **e)
{
        _cleanup_(tenants_free) char **tenants = NULL;
        struct walk w = {.top = top};
        int r;

        for (int i = 0; i < TOP_PANELS; i++)
                table_clear(&top->tables[i]);
        clear_loads(top);
        top->guests = top->running = 0;
        r = tree_tenants(top->cloud, &tenants, e);
        for (char **p = tenants; r == 0 && *p; p++) {
                w.tenant = *p;
                r = tenant_row(top, *p);
                if (r == 0)
                        r = forgive(tree_each(top->cloud, *p, "instances", guest_row, &w, e), e);
                if (r == 0)
                        r = forgive(tree_each(top->cloud, *p, "jobs", job_row, &w, e), e);
        }
        if (r == 0)
                r = forgive(tree_each(top->cloud, NULL, "admin/hosts", host_row, &w, e), e);
        return r < 0 ? r : top_volumes(top, e);
}

void top_done(struct top *top)
{
        for (int i = 0; i < TOP_PANELS; i++)
                table_done(&top->tables[i]);
        clear_loads(top);
        top_volumes_done(top);
}

/* The first look has figures taken, the second knows them, the third what happened in between. */
static int warm_up(struct top *top, struct err **e)
{
        int r = 0;

        for (int i = 0; i < 2 && r == 0; i++) {
                r = top_look(top, e);
                if (r < 0 || top->volumes == 0)
                        return r;
                poll(NULL, 0, WARM_UP_MS);
        }
        return r;
}

static int print_text(const struct top *top)
{
        _cleanup_buf_ struct buf out = {};

        for (int i = 0; i < TOP_PANELS; i++) {
                const struct table *t = &top->tables[i];

                if (i == TOP_GUESTS && t->rows == 0)
                        buf_printf(&out, "%sno instances\n", out.len ? "\n" : "");
                if (t->rows == 0)
                        continue;
                if (out.len)
                        buf_addc(&out, '\n');
                table_titles(t, &out);
                for (size_t row = 0; row < t->rows; row++)
                        table_row(t, row, false, &out);
        }
        fputs(buf_str(&out), stdout);
        fflush(stdout);
        return 0;
}

static int print_json(const struct top *top)
{
        json_t *all = json_object();
        int r = 0;

        for (int i = 0; i < TOP_PANELS && r == 0; i++)
                r = json_object_set_new(all, top_panels[i].name, table_json(&top->tables[i]));
        if (r == 0)
                r = json_dumpf(all, stdout, JSON_INDENT(2));
        puts("");
        json_decref(all);
        return r ? -ENOMEM : 0;
}

static int run(struct top *top, struct err **e)
{
        struct cloud *c = top->cloud;
        char now[CLOCK_TEXT_MAX];
        int r;

        if (!c->once && !c->json && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO))
                return top_screen(top, e);
        r = c->once || c->json ? warm_up(top, e) : 0;
        while (r == 0) {
                r = top_look(top, e);
                if (r < 0)
                        break;
                if (!c->once && !c->json)
                        printf("%s  %s\n\n", c->mount, clock_format(now, clock_now()));
                r = c->json ? print_json(top) : print_text(top);
                if (r < 0 || c->once || c->json || puts("") == EOF)
                        break;
                poll(NULL, 0, EVERY_MS);
        }
        return r;
}

int verb_top(struct cloud *c, struct err **e)
{
        struct top top;
        int r;

        if (mount_probe(c->mount, PROBE_MS) != MOUNT_OK) {
                err_set(e, -ENOTCONN, "no cloud answers on '%s'", c->mount);
                return err_hint(e, -ENOTCONN, "strato up");
        }
        top_init(&top, c);
        r = run(&top, e);
        top_done(&top);
        return r < 0 ? r : STATUS_OK;
}
