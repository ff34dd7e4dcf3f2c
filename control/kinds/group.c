/* Groups: instances that belong together, or apart. */
#include "control/internal.h"

static void render_members(struct control *c, const struct object *o, struct buf *out)
{
        for (unsigned i = 0; i < o->nrefs; i++)
                buf_printf(out, "instances/%s host=%s\n", o->refs[i]->name,
                           object_str(o->refs[i], "host"));
}

static const struct attr_def attrs[] = {
        {"policy", ATTR_WORD, ROLE_MEMBER,
         .words = "affinity anti-affinity soft-affinity soft-anti-affinity",
         .def = "soft-anti-affinity", .index = true,
         .help = "on one host, on different hosts; soft: if there is room; holds for starts to "
                 "come"},
        {"description", ATTR_TEXT, ROLE_MEMBER, .max = 255, .help = "words for people"},
};

static const struct file_def files[] = {
        {"members", FILE_TEXT, ROLE_NOBODY, .render = render_members,
         .help = "its instances and where each runs, or ran last"},
};

static const struct state_def states[] = {{"active", .help = "may be linked to"}};

static int remove_group(struct txn *t, struct object *o, struct err **e)
{
        int r = check_referrers(o, e);

        if (r == 0)
                txn_delete(t, o);
        return r;
}

const struct kind kind_group = {
        .name = "group",
        .plural = "groups",
        .help = "Instances that are to run on one host, or on different ones.",
        .schema = 1,
        .creator = ROLE_MEMBER,
        .attrs = attrs,
        .nattrs = ARRAY_SIZE(attrs),
        .states = states,
        .nstates = ARRAY_SIZE(states),
        .files = files,
        .nfiles = ARRAY_SIZE(files),
        .remove = remove_group,
};
