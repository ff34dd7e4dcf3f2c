#include "control/driver/compute.h"

const char *guest_state_name(enum guest_state s)
{
        static const char *const names[] = {
                [GUEST_GONE] = "gone",
                [GUEST_RUNNING] = "running",
                [GUEST_PAUSED] = "paused",
                [GUEST_STALLED] = "stalled",
                [GUEST_CRASHED] = "crashed",
                [GUEST_BETWEEN] = "between two hosts",
        };

        return (unsigned)s < ARRAY_SIZE(names) ? names[s] : "unknown";
}
