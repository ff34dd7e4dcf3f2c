/* VPNs between sites: declared, so that who looks for them learns that there are none. */
#include "control/internal.h"

static int create(struct txn *t, struct object *o, struct err **e)
{
        err_set(e, -ENOTSUP, "VPNs between sites (IPsec) are not built yet");
        return err_hint(e, -ENOTSUP,
                        "run one in a guest: with a floating IP, and rules for udp 500 and 4500, "
                        "or for WireGuard's port");
}

static const struct attr_def attrs[] = {
        {"description", ATTR_TEXT, ROLE_MEMBER, .max = 255, .help = "words for people"},
};

static const struct state_def states[] = {{"active", .help = "never yet"}};

const struct kind kind_vpn = {
        .name = "vpn",
        .plural = "vpns",
        .help = "Tunnels to other sites: not built yet, mkdir is refused.",
        .schema = 1,
        .creator = ROLE_MEMBER,
        .attrs = attrs,
        .nattrs = ARRAY_SIZE(attrs),
        .states = states,
        .nstates = ARRAY_SIZE(states),
        .create = create,
};
