/* Flavors: sizes of guests.  An instance copies the figures when its flavor is set, so changing or
 * deleting a flavor touches no guest. */
#include "control/kind.h"
#include "common/macro.h"

static const struct attr_def attrs[] = {
        {"vcpus", ATTR_NUMBER, ROLE_ADMIN, .min = 1, .max = 1024, .def = "1", .index = true,
         .help = "virtual processors"},
        {"vcpus_max", ATTR_NUMBER, ROLE_ADMIN, .max = 1024,
         .help = "processors that a running guest may be given; 0: vcpus"},
        {"memory", ATTR_SIZE, ROLE_ADMIN, .min = 16 << 20, .max = 1ULL << 44, .def = "512M",
         .index = true, .help = "memory of the guest"},
        {"disk", ATTR_SIZE, ROLE_ADMIN, .max = 1ULL << 50, .index = true,
         .help = "size of a root volume made from `image`; 0: as large as the image"},
        {"description", ATTR_TEXT, ROLE_ADMIN, .max = 255, .help = "words for people"},
        {"memory_max", ATTR_SIZE, ROLE_ADMIN, .max = 1ULL << 44,
         .help = "memory that a running guest may be given; 0: memory"},
        {"cores", ATTR_NUMBER, ROLE_ADMIN, .max = 1024,
         .help = "of a socket; 0: each processor is a socket"},
        {"threads", ATTR_NUMBER, ROLE_ADMIN, .max = 16, .help = "of a core; 0: one"},
        {"cpu", ATTR_NAME, ROLE_ADMIN,
         .help = "model, in libvirt's words (virsh cpu-models x86_64); empty: the host's"},
        {"numa", ATTR_NUMBER, ROLE_ADMIN, .max = 64,
         .help = "nodes that processors and memory are spread over; 0: none"},
        {"huge_pages", ATTR_WORD, ROLE_ADMIN, .words = "none 2M 1G", .def = "none",
         .help = "pages of the host that its memory is made of"},
        {"hypervisor", ATTR_WORD, ROLE_ADMIN, .words = "qemu lxc", .def = "qemu", .index = true,
         .help = "what runs it; lxc: a container, whose root is an image that holds a tree (tar)"},
};
static const struct state_def states[] = {{"active", .help = "may be used"}};

const struct kind kind_flavor = {
        .name = "flavor",
        .plural = "flavors",
        .help = "Sizes of guests; readable by all, written by admins.",
        .schema = 1,
        .global = true,
        .parent = "",
        .creator = ROLE_ADMIN,
        .attrs = attrs,
        .nattrs = ARRAY_SIZE(attrs),
        .states = states,
        .nstates = ARRAY_SIZE(states),
};
