/* The cloud itself: object 1, owner of the global kinds.  It has no directory of its own; the
 * root of the mount is it. */
#include "control/internal.h"

static int create(struct txn *t, struct object *o, struct err **e)
{
        txn_set_state(t, o, CLOUD_NEW);
        return 0;
}

static const struct state_def states[] = {
        [CLOUD_UP] = {"up", .help = "it answers"},
        [CLOUD_NEW] = {"new", .help = "what it begins with is being made"},
};

const struct kind kind_cloud = {
        .name = "cloud",
        .plural = "cloud",
        .help = "The cloud as a whole.",
        .schema = 1,
        .global = true,
        .creator = ROLE_NOBODY,
        .states = states,
        .nstates = ARRAY_SIZE(states),
        .create = create,
};
