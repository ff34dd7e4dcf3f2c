/* What libvirt has here that the cloud does not know: listed, and never touched unasked. */
#include <stdlib.h>
#include <string.h>

#include "cli/doctor.h"
#include "cli/mount.h"
#include "cli/tree.h"
#include "common/child.h"
#include "common/macro.h"
#include "common/name.h"

enum { VIRSH_MS = 10000, SHOWN = 20 };

struct known {
        struct buf ids; /* a line each */
};

static int add_id(void *arg, const struct row *row)
{
        struct known *k = arg;

        buf_printf(&k->ids, "%s\n", row->id);
        return 0;
}

static int read_known(const struct cloud *c, struct known *k)
{
        _cleanup_(tenants_free) char **tenants = NULL;
        int r = tree_tenants(c, &tenants, NULL);

        for (char **t = tenants; r == 0 && *t; t++)
                r = tree_each(c, *t, "instances", add_id, k, NULL);
        return r;
}

/* "UUID NAME" lines of every domain, running or not. */
static int read_domains(struct buf *out, struct err **e)
{
        const char *uri = geteuid() == 0 ? "qemu:///system" : "qemu:///session";
        const char *argv[] = {"virsh", "-q", "-c", uri, "list", "--all", "--uuid", "--name", NULL};
        struct child child = {.argv = argv, .timeout_ms = VIRSH_MS};
        struct child_result res = {};
        int r = child_run(&child, &res, e);

        if (r == 0 && res.status != 0)
                r = err_set(e, -EIO, "%.*s", (int)strcspn(buf_str(&res.err), "\n"),
                            buf_str(&res.err));
        if (r == 0)
                buf_addstr(out, buf_str(&res.out));
        child_result_done(&res);
        return r;
}

/* Names of those that are not known; their number. */
static unsigned compare(const struct known *k, char *domains, struct buf *names)
{
        unsigned n = 0;
        char *save = NULL;

        for (char *l = strtok_r(domains, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
                size_t len = strcspn(l, " ");
                const char *name = l + len + strspn(l + len, " ");
                char id[ID_TEXT_SIZE];

                if (len != ID_TEXT_SIZE - 1)
                        continue;
                snprintf(id, sizeof(id), "%.*s", (int)len, l);
                if (strstr(buf_str(&k->ids), id))
                        continue;
                if (n++ < SHOWN)
                        buf_printf(names, "%s%s", n > 1 ? ", " : "", name);
        }
        if (n > SHOWN)
                buf_printf(names, " and %u more", n - SHOWN);
        return n;
}

enum verdict check_guests(const struct cloud *c, struct finding *f)
{
        _cleanup_buf_ struct buf domains = {}, names = {}, ids = {};
        _cleanup_err_ struct err *err = NULL;
        struct known k = {};
        unsigned n;

        if (read_domains(&domains, &err) < 0) { /* embedded libvirt has no guests of others */
                buf_printf(&f->words, "no libvirt daemon to ask for guests of others: %s",
                           err_msg(err));
                return CHECK_OK;
        }
        if (read_known(c, &k) < 0)
                buf_addstr(&f->words, "the cloud is down; ");
        ids = k.ids;
        n = compare(&k, domains.data ?: (char[]){""}, &names);
        if (n == 0) {
                buf_addstr(&f->words, "libvirt has no guest that is not of this cloud");
                return CHECK_OK;
        }
        buf_printf(&f->words, "libvirt has %u that the cloud does not know: %s", n,
                   buf_str(&names));
        buf_addstr(&f->hint, "echo 'adopt NAME' > tenants/TENANT/ctl");
        return CHECK_OK;
}
