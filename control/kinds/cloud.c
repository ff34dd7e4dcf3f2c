/* The cloud itself: object 1, owner of the global kinds.  It has no directory of its own; the
 * root of the mount is it. */
#include "control/kind.h"
#include "common/macro.h"

static const struct state_def states[] = {{"up", .help = "it answers"}};

const struct kind kind_cloud = {
        .name = "cloud",
        .plural = "cloud",
        .help = "The cloud as a whole.",
        .schema = 1,
        .global = true,
        .creator = ROLE_NOBODY,
        .states = states,
        .nstates = ARRAY_SIZE(states),
};
