/* Hosts: the machines of the cloud.  On the embedded default there is one, and it wrote itself. */
#include "control/network.h"

#include <sys/statvfs.h>
#include <sys/sysinfo.h>

static void render_cpus(struct control *c, const struct object *o, struct buf *out)
{
        buf_printf(out, "%d", get_nprocs());
}

static void render_memory(struct control *c, const struct object *o, struct buf *out)
{
        struct sysinfo i = {};

        sysinfo(&i);
        buf_printf(out, "%" PRIu64, (uint64_t)i.totalram * i.mem_unit);
}

static void render_free(struct control *c, const struct object *o, struct buf *out)
{
        struct statvfs v = {};

        statvfs(c->cfg.state, &v); /* the local file system of the pool: the kernel's memory */
        buf_printf(out, "%" PRIu64, (uint64_t)v.f_bavail * v.f_frsize);
}

static const struct attr_def attrs[] = {
        {"compute", ATTR_WORD, ROLE_NOBODY, .words = "system embed session none", .index = true,
         .help = "how guests run: libvirt's system daemon, embedded, or a session"},
        {"accel", ATTR_WORD, ROLE_ADMIN, .words = "kvm tcg unknown", .def = "unknown",
         .index = true, .help = "what a probe that booted something found"},
        {"cpus", ATTR_NUMBER, ROLE_NOBODY, .render = render_cpus, .changes = true, .index = true,
         .help = "processors"},
        {"memory", ATTR_SIZE, ROLE_NOBODY, .render = render_memory, .changes = true,
         .index = true, .help = "memory"},
        {"free", ATTR_SIZE, ROLE_NOBODY, .render = render_free, .changes = true, .index = true,
         .help = "free space of the local pool"},
        {"floating", ATTR_TEXT, ROLE_ADMIN, .max = 500, .set = floating_set_pool,
         .help = "FIRST-LAST ...: addresses outside for floating IPs, which come to this host"},
        {"version", ATTR_TEXT, ROLE_NOBODY, .index = true, .help = "release that runs there"},
};
static const struct state_def states[] = {{"up", .help = "serves"}};

const struct kind kind_host = {
        .name = "host",
        .plural = "hosts",
        .help = "Machines of the cloud.",
        .schema = 1,
        .global = true,
        .parent = "admin",
        .creator = ROLE_NOBODY,
        .attrs = attrs,
        .nattrs = ARRAY_SIZE(attrs),
        .states = states,
        .nstates = ARRAY_SIZE(states),
};
