/* strato status: the daemons, the mount, and what the tree counts. */
#include <jansson.h>
#include <stdio.h>
#include <sys/statvfs.h>

#include "cli/cli.h"
#include "cli/daemon.h"
#include "cli/mount.h"
#include "cli/proc.h"
#include "cli/tree.h"
#include "common/macro.h"
#include "common/size.h"

enum { PROBE_MS = 5000 };

static const char *const counted[] = {"images", "volumes", "instances", "jobs"};

struct count {
        unsigned all, live;
};

static int count_row(void *arg, const struct row *row)
{
        struct count *n = arg;

        n->all++;
        if (state_has_guest(row->state))
                n->live++;
        return 0;
}

static json_t *tenant_report(const struct cloud *c, const char *tenant)
{
        json_t *j = json_pack("{s:s}", "name", tenant);

        for (size_t i = 0; i < ARRAY_SIZE(counted); i++) {
                struct count n = {};

                if (tree_each(c, tenant, counted[i], count_row, &n, NULL) < 0)
                        continue;
                json_object_set_new(j, counted[i], json_integer(n.all));
                if (streq(counted[i], "instances"))
                        json_object_set_new(j, "running", json_integer(n.live));
        }
        return j;
}

static json_t *tenants_report(const struct cloud *c)
{
        _cleanup_(tenants_free) char **tenants = NULL;
        json_t *list = json_array();

        if (tree_tenants(c, &tenants, NULL) < 0)
                return list;
        for (char **t = tenants; *t; t++)
                json_array_append_new(list, tenant_report(c, *t));
        return list;
}

static json_t *daemon_report(const struct cloud *c, enum daemon d)
{
        struct proc_facts f;
        char version[32];
        pid_t pid, holder = 0;
        json_t *j;
        int r;

        if (daemon_find(c, d, &holder) <= 0)
                holder = 0;
        r = daemon_find_main(c, d, &pid);
        if (r < 0)
                return json_pack("{s:b s:s}", "running", 0, "error", strerror(-r));
        if (r > 0 && (pid == 0 || !proc_facts(pid, &f)))
                return json_pack("{s:b s:s}", "running", 0, "error", "it is being started again");
        if (r == 0)
                return json_pack("{s:b}", "running", 0);
        daemon_version(c, d, version);
        j = json_pack("{s:b s:i s:s s:I s:I s:b}", "running", 1, "pid", (int)pid, "version",
                      version, "uptime", (json_int_t)f.uptime, "pss", (json_int_t)f.pss, "replaced",
                      f.replaced);
        if (holder > 0 && holder != pid && proc_facts(holder, &f))
                json_object_set_new(
                        j, "holder",
                        json_pack("{s:i s:I}", "pid", (int)holder, "pss", (json_int_t)f.pss));
        else if (daemon_alone(c, d))
                json_object_set_new(j, "alone", json_true());
        return j;
}

static json_t *report(const struct cloud *c)
{
        enum mount_state m = mount_probe(c->mount, PROBE_MS);
        json_t *j, *blockd = daemon_report(c, BLOCKD), *stratod = daemon_report(c, STRATOD);
        struct statvfs fs;

        j = json_pack("{s:s s:s s:s s:o s:o s:i}", "mount", c->mount, "mount_state", mount_word(m),
                      "state", c->state, "blockd", blockd, "stratod", stratod, "guests",
                      (int)proc_guests(c->run, c->state, NULL, 0));
        if (statvfs(c->state, &fs) == 0) {
                json_object_set_new(j, "free",
                                    json_integer((json_int_t)(fs.f_bavail * fs.f_frsize)));
                json_object_set_new(j, "size",
                                    json_integer((json_int_t)(fs.f_blocks * fs.f_frsize)));
        }
        if (m == MOUNT_OK && json_is_true(json_object_get(stratod, "running")))
                json_object_set_new(j, "tenants", tenants_report(c));
        return j;
}

static bool runs(const json_t *j, const char *name)
{
        return json_is_true(json_object_get(json_object_get(j, name), "running"));
}

static int verdict(const json_t *j)
{
        bool mounted = json_object_get(j, "tenants");

        if (runs(j, "blockd") && runs(j, "stratod") && mounted)
                return STATUS_OK;
        if (runs(j, "blockd") || runs(j, "stratod") ||
            streq(json_string_value(json_object_get(j, "mount_state")), mount_word(MOUNT_STALE)))
                return STATUS_PARTLY;
        return STATUS_DOWN;
}

static void print_uptime(json_int_t s)
{
        if (s >= 86400)
                printf("%lld d %lld h", s / 86400, s / 3600 % 24);
        else if (s >= 3600)
                printf("%lld h %lld min", s / 3600, s / 60 % 60);
        else if (s >= 60)
                printf("%lld min", s / 60);
        else
                printf("%lld s", s);
}

static void print_daemon(const json_t *j, const char *name)
{
        const json_t *d = json_object_get(j, name);
        char size[SIZE_TEXT_MAX];

        printf("%-9s", name);
        if (!json_is_true(json_object_get(d, "running"))) {
                const char *error = json_string_value(json_object_get(d, "error"));

                printf("down%s%s\n", error ? ": " : "", error ? error : "");
                return;
        }
        printf("pid %lld, version %s, up ", json_integer_value(json_object_get(d, "pid")),
               json_string_value(json_object_get(d, "version")));
        print_uptime(json_integer_value(json_object_get(d, "uptime")));
        printf(", %s of memory", size_human(size, json_integer_value(json_object_get(d, "pss"))));
        if (json_is_true(json_object_get(d, "replaced")))
                printf(" (its program was replaced since)");
        if (json_object_get(d, "holder"))
                printf(", held by stratofs-hold (%lld)",
                       json_integer_value(json_object_get(json_object_get(d, "holder"), "pid")));
        else if (json_is_true(json_object_get(d, "alone")))
                printf("; its holder was killed: nobody starts it again");
        putchar('\n');
}

static void print_tenant(const json_t *t)
{
        printf("  %-16s", json_string_value(json_object_get(t, "name")));
        for (size_t i = 0; i < ARRAY_SIZE(counted); i++) {
                const json_t *n = json_object_get(t, counted[i]);

                if (!n)
                        continue;
                printf(" %lld %s", json_integer_value(n), counted[i]);
                if (streq(counted[i], "instances"))
                        printf(" (%lld running)",
                               json_integer_value(json_object_get(t, "running")));
        }
        putchar('\n');
}

static void print_report(const json_t *j)
{
        char free[SIZE_TEXT_MAX], size[SIZE_TEXT_MAX];
        const json_t *tenants = json_object_get(j, "tenants"), *t;
        size_t i;

        print_daemon(j, "blockd");
        print_daemon(j, "stratod");
        printf("%-9s%s, %s\n", "mount", json_string_value(json_object_get(j, "mount")),
               json_string_value(json_object_get(j, "mount_state")));
        printf("%-9s%lld running\n", "guests", json_integer_value(json_object_get(j, "guests")));
        if (json_object_get(j, "free"))
                printf("%-9s%s, %s free of %s\n", "state",
                       json_string_value(json_object_get(j, "state")),
                       size_human(free, json_integer_value(json_object_get(j, "free"))),
                       size_human(size, json_integer_value(json_object_get(j, "size"))));
        if (json_array_size(tenants) > 0)
                puts("tenants");
        json_array_foreach (tenants, i, t)
                print_tenant(t);
}

int verb_status(struct cloud *c, struct err **e)
{
        json_t *j = report(c);
        int status = verdict(j);

        json_object_set_new(j, "up", json_boolean(status == STATUS_OK));
        if (c->json) {
                json_dumpf(j, stdout, JSON_INDENT(2) | JSON_SORT_KEYS);
                putchar('\n');
        } else {
                print_report(j);
                if (status != STATUS_OK)
                        puts(status == STATUS_DOWN
                                     ? "The cloud is down; strato up starts it."
                                     : "A part is missing; strato up brings it back.");
        }
        json_decref(j);
        return status;
}
