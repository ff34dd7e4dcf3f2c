/* strato doctor's parts: each tries a thing by doing it. */
#pragma once

#include "cli/cli.h"
#include "common/buf.h"

enum verdict { CHECK_OK, CHECK_WARN, CHECK_FAIL };

struct finding {
        struct buf words; /* one line */
        struct buf hint;  /* what would help; may be empty */
};

/* Mounts a FUSE file system on a folder of its own, as stratod would. */
enum verdict check_mount(const struct cloud *c, struct finding *f);
/* Starts a blockd of its own, writes to a volume over NBD and reads it back. */
enum verdict check_serve(const struct cloud *c, struct finding *f);
/* Guests that libvirt has on this host and the cloud does not know. */
enum verdict check_guests(const struct cloud *c, struct finding *f);
/* Boots something under KVM; if that fails, under emulation. */
enum verdict check_boot(const struct cloud *c, struct finding *f);
