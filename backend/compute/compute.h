/* Loader of the compute driver.
 *
 * libvirt costs memory and start-up time, so it is a module: compute_open() maps it on first use
 * and a stratod without guests never does.  The probes run QEMU themselves and need no libvirt. */
#pragma once

#include <stdbool.h>
#include "control/driver/compute.h"

enum compute_mode {
        COMPUTE_SYSTEM,  /* qemu:///system: a libvirtd serves the whole host */
        COMPUTE_EMBED,   /* qemu:///embed: libvirt's driver inside this process, which is root */
        COMPUTE_SESSION, /* qemu:///session: a plain user's own libvirtd, started on demand */
        COMPUTE_TEST,    /* test:///default: libvirt's simulation: no guest runs, and all are gone
                          * with this process.  Disks and networks are not plugged there */
        COMPUTE_LXC,     /* lxc:///: containers, by the libvirtd that serves the whole host.  Beside
                          * one of the others; no host's own mode */
};
const char *compute_mode_name(enum compute_mode m);
/* -EINVAL, with the legal words, when text names no mode. */
int compute_mode_parse(const char *text, enum compute_mode *ret, struct err **e);

/* The mode for a new host: what the environment's STRATOFS_COMPUTE names, if it names one; session
 * for a plain user; for root, system where a libvirtd accepts a
 * connection and embed otherwise.  Call it once and keep the answer: guests started in one mode
 * are not seen in another.  Does not load libvirt; blocks no longer than a connect(2). */
enum compute_mode compute_choose(void);

struct compute_config {
        enum compute_mode mode;
        const char *state;  /* the cloud's folder; embed keeps <state>/libvirt.  Guests' users must
                             * be able to enter it (0711) */
        const char *owner;  /* written into each guest; list() shows this owner's only.
                             * NULL means "stratofs" */
        unsigned reconnect; /* seconds a disk's request waits for a server that is away before the
                             * guest is paused; 0 means 90 */
        const char *console; /* lxc: stratofs-console, copied; NULL: containers have no console */
};

/* Maps the module and opens the driver.  ev is copied and may be NULL.
 *
 * system and session: succeeds with the engine down, too; every operation then fails with
 * -ECONNREFUSED until it answers, and ev->resync tells when it does.
 * embed: -EBUSY when another process holds the same state (libvirt does not try twice: this process
 * has to end, and so does a process to give up a state that it opened, close() or not), -EACCES
 * when guests could not enter it, -ENAMETOOLONG when sockets below state would have too long a
 * name.  The process becomes a child subreaper and reaps what it did not start itself; its own
 * children are left to their owners. -ENOTSUP when the module or libvirt is not installed.
 *
 * The module stays mapped until the process ends, and SIGPIPE is ignored from then on unless it has
 * a handler.  One open driver a process, and one of containers. */
int compute_open(const struct compute_config *cfg, const struct compute_events *ev,
                 struct compute **ret, struct err **e);

/* With fault points before and behind each operation, for a process that is armed; it takes `to`
 * over.  Without memory: `to` itself. */
struct compute *compute_faulty(struct compute *to);

/* Whether guests run under KVM here.  Boots a boot sector that speaks on the serial line: that
 * /dev/kvm opens proves nothing.  workdir is a folder to put the disk image in, for the time of the
 * call.  0 with *ret; -ENOENT no QEMU; else what kept the probe from being made. */
int compute_probe_kvm(const char *workdir, int timeout_ms, bool *ret, struct err **e);
/* The same under TCG: 0 when QEMU boots a guest at all, else why not (-ETIMEDOUT, -EIO). */
int compute_probe_tcg(const char *workdir, int timeout_ms, struct err **e);

/* Whether text may be merged into a guest's description (struct guest's extra): -EINVAL with words;
 * -ENOTSUP without the module.  Memory only. */
int compute_check_extra(const char *text, struct err **e);

/* The module's symbols. */
#define COMPUTE_MODULE "stratofs-compute-libvirt.so"
#define COMPUTE_ENTRY "stratofs_compute_open"
typedef int (*compute_entry)(const struct compute_config *cfg, const struct compute_events *ev,
                             struct compute **ret, struct err **e);
#define COMPUTE_CHECK "stratofs_compute_check"
typedef int (*compute_check)(const char *text, struct err **e);
