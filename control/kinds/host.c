/* Hosts: the machines of the cloud.  Each writes its own record when it starts and, where there are
 * several, with each renewal of its lease. */
#include "control/hosts.h"
#include "control/jobs/jobs.h"
#include "control/network.h"

static void render_free(struct control *c, const struct object *o, struct buf *out)
{
        buf_printf(out, "%" PRIu64, host_free(c, o));
}

static void render_capacity(struct control *c, const struct object *o, struct buf *out)
{
        buf_printf(out, "vcpus %" PRIu64 "\nmemory %" PRIu64 "\ndisk %" PRIu64 "\n",
                   object_num(o, "cpus"), object_num(o, "memory"), object_num(o, "disk"));
}

static void render_used(struct control *c, const struct object *o, struct buf *out)
{
        struct host_use u;

        host_use(c, o->name, false, &u);
        buf_printf(out, "instances %u\nvcpus %" PRIu64 "\nmemory %" PRIu64 "\ndisk %" PRIu64 "\n",
                   u.guests, u.vcpus, u.memory, object_num(o, "disk") - host_free(c, o));
}

static void render_instances(struct control *c, const struct object *o, struct buf *out)
{
        struct object *i, *tmp;

        HASH_ITER (hh_no, c->by_no, i, tmp) {
                if (i->kind != &kind_instance || !host_keeps(i, o->name))
                        continue;
                render_path(c, i, out);
                buf_printf(out, " %s\n", object_state(i));
        }
}

static int verb_drain(struct txn *t, struct object *o, const char *args, struct err **e)
{
        txn_set_state(t, o, HOST_DRAINING);
        return 0;
}

static int verb_undrain(struct txn *t, struct object *o, const char *args, struct err **e)
{
        txn_set_state(t, o, HOST_UP);
        return 0;
}

/* What it ran is started by who takes over: they are of other scopes than this record. */
static int verb_evacuate(struct txn *t, struct object *o, const char *args, struct err **e)
{
        txn_set_num(t, o, "lost_epoch", object_num(o, "epoch"));
        txn_set_num(t, o, "evacuate", 1);
        txn_set_state(t, o, HOST_LOST);
        return 0;
}

/* Whether only that host has it, or may have it running. */
static bool left_there(const struct object *o, const char *host)
{
        if (o->kind == &kind_instance)
                return host_keeps(o, host);
        return o->kind == &kind_volume && volume_local(o) && streq(object_str(o, "host"), host);
}

/* It serves from when it takes its lease. */
static int create_host(struct txn *t, struct object *o, struct err **e)
{
        if (feed_shared(t->c))
                txn_set_state(t, o, HOST_AWAY);
        return 0;
}

static int remove_host(struct txn *t, struct object *o, struct err **e)
{
        struct object *i, *tmp;

        if (!object_in(o, STATE(HOST_AWAY) | STATE(HOST_DOWN))) {
                err_set(e, -EBUSY, "host '%s' is %s", o->name, object_state(o));
                err_hint(e, -EBUSY, "strato down there, or wait until it is taken over");
                return -EBUSY;
        }
        HASH_ITER (hh_no, t->c->by_no, i, tmp) {
                struct buf path = {};

                if (!left_there(i, o->name))
                        continue;
                render_path(t->c, i, &path);
                err_set(e, -EBUSY, "%s is there", buf_str(&path));
                buf_done(&path);
                if (i->kind == &kind_instance)
                        err_hint(e, -EBUSY, "echo evacuate > ctl starts its guests elsewhere");
                return -EBUSY;
        }
        txn_delete(t, o);
        return 0;
}

static const struct attr_def attrs[] = {
        {"compute", ATTR_WORD, ROLE_NOBODY, .words = "system embed session test none",
         .index = true,
         .help = "how guests run: libvirt's system daemon, embedded, a session; or simulated"},
        {"accel", ATTR_WORD, ROLE_ADMIN, .words = "kvm tcg unknown", .def = "unknown",
         .index = true, .help = "what a probe that booted something found"},
        {"cpus", ATTR_NUMBER, ROLE_NOBODY, .index = true, .help = "processors"},
        {"memory", ATTR_SIZE, ROLE_NOBODY, .index = true, .help = "memory"},
        {"free", ATTR_SIZE, ROLE_NOBODY, .render = render_free, .changes = true, .index = true,
         .help = "free space of the local pool"},
        {"disk", ATTR_SIZE, ROLE_NOBODY, .help = "space of the local pool"},
        {"floating", ATTR_TEXT, ROLE_ADMIN, .max = 500, .set = floating_set_pool,
         .help = "FIRST-LAST ...: addresses outside for floating IPs, which come to this host"},
        {"physical", ATTR_TEXT, ROLE_ADMIN, .max = 500, .set = host_set_physical,
         .help = "NAME=DEVICE ...: networks outside, and the device of the host that is in each"},
        {"address", ATTR_TEXT, ROLE_ADMIN, .max = 15, .set = host_set_address,
         .help = "where other hosts reach it: networks of type vxlan go there"},
        {"version", ATTR_TEXT, ROLE_NOBODY, .index = true, .help = "release that runs there"},
        {"arch", ATTR_TEXT, ROLE_NOBODY, .help = "its processors' architecture"},
        {"zone", ATTR_NAME, ROLE_ADMIN, .index = true,
         .help = "availability zone: what fails together"},
        {"features", ATTR_TEXT, ROLE_ADMIN, .max = 255,
         .help = "words that instances may require, beside its arch and accel"},
        {"vcpus_percent", ATTR_NUMBER, ROLE_ADMIN, .min = 1, .max = 100000, .def = "1600",
         .help = "how many virtual processors it gives away, of its own in percent"},
        {"memory_percent", ATTR_NUMBER, ROLE_ADMIN, .min = 1, .max = 100000, .def = "150",
         .help = "how much memory it gives away, of its own in percent"},
        {"migration_uri", ATTR_TEXT, ROLE_ADMIN, .max = 500,
         .help = "how other hosts' libvirtd reach the one here; empty: qemu+tls://NAME/system"},
        {"migration_data", ATTR_TEXT, ROLE_ADMIN, .max = 500,
         .help = "where memory of guests that come is received, as tcp://ADDRESS; empty: libvirt's "
                 "choice"},
        {"migration_tls", ATTR_BOOL, ROLE_ADMIN,
         .help = "1: that goes by TLS, with the certificates in qemu.conf's migrate_tls folder"},
        {"migration_seconds", ATTR_NUMBER, ROLE_ADMIN, .min = 1, .max = 86400, .def = "600",
         .help = "time for a guest that leaves while it runs"},
        {"migration_late", ATTR_WORD, ROLE_ADMIN, .words = "abort pause post-copy", .def = "abort",
         .help = "after that: it stays, or is halted for the rest, or goes first and its memory "
                 "follows"},
        {"blocks", ATTR_TEXT, ROLE_NOBODY, .hidden = true,
         .help = "of numbers of networks, that it gives away"},
        {"seen", ATTR_TEXT, ROLE_NOBODY, .render = host_render_seen, .changes = true,
         .help = "how many seconds ago it renewed its lease, as this host saw it"},
        {"beat", ATTR_NUMBER, ROLE_NOBODY, .hidden = true, .help = "renewals of its lease"},
        {"epoch", ATTR_NUMBER, ROLE_NOBODY, .help = "start of its daemon that has the lease"},
        {"lost_epoch", ATTR_NUMBER, ROLE_NOBODY, .hidden = true,
         .help = "the start that others declared lost last"},
        {"evacuate", ATTR_BOOL, ROLE_NOBODY, .hidden = true,
         .help = "who takes over starts all that it ran"},
        {"drained", ATTR_BOOL, ROLE_NOBODY, .hidden = true, .help = "it comes back draining"},
        {"machine", ATTR_TEXT, ROLE_NOBODY, .hidden = true, .help = "id of the machine"},
        {"clients", ATTR_TEXT, ROLE_NOBODY, .hidden = true, .help = "what others need to fence it"},
};

static const struct file_def files[] = {
        {"capacity", FILE_TEXT, ROLE_NOBODY, .render = render_capacity,
         .help = "what it has: vcpus, memory, disk"},
        {"used", FILE_TEXT, ROLE_NOBODY, .render = render_used,
         .help = "what of that its guests take"},
        {"instances", FILE_TEXT, ROLE_NOBODY, .render = render_instances,
         .help = "the guests on it: what is left while it drains"},
};

static const struct verb_def verbs[] = {
        {"drain", "", ROLE_ADMIN, STATE(HOST_UP),
         "it gets no new guests, and those it has go to others; see instances", verb_drain},
        {"undrain", "", ROLE_ADMIN, STATE(HOST_DRAINING), "it may have guests again", verb_undrain},
        {"evacuate", "", ROLE_ADMIN, STATE(HOST_AWAY) | STATE(HOST_DOWN),
         "take it for dead: fence it, and start all that it ran elsewhere", verb_evacuate},
};

static const struct state_def states[] = {
        {"up", .help = "serves"},
        {"draining", .help = "serves, and gets no new guests"},
        {"away", .help = "its daemon was stopped; its guests go on, nobody takes over"},
        {"lost", .help = "it did not renew its lease: being fenced, others take over"},
        {"down", .help = "fenced, nothing of it is left; it may come back"},
};

const struct kind kind_host = {
        .name = "host",
        .plural = "hosts",
        .help = "Machines of the cloud.",
        .schema = 1,
        .global = true,
        .parent = "admin",
        .creator = ROLE_NOBODY,
        .remover = ROLE_ADMIN,
        .create = create_host,
        .remove = remove_host,
        .attrs = attrs,
        .nattrs = ARRAY_SIZE(attrs),
        .files = files,
        .nfiles = ARRAY_SIZE(files),
        .verbs = verbs,
        .nverbs = ARRAY_SIZE(verbs),
        .states = states,
        .nstates = ARRAY_SIZE(states),
};
