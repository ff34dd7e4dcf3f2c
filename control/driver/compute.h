/* Compute: where guests run.  Driver: backend/compute/libvirt.
 *
 * Calls block and are made on job workers; the event callback comes on the driver's own thread
 * and must not block.  A guest is known by its UUID, on the host and here alike. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "common/err.h"

/* UEFI, and what a guest's own variables begin as (package ovmf). */
#define GUEST_FIRMWARE "/usr/share/OVMF/OVMF_CODE_4M.fd"
#define GUEST_FIRMWARE_VARS "/usr/share/OVMF/OVMF_VARS_4M.fd"

struct guest_disk {
        char target[16];       /* vda */
        const char *socket;    /* NBD over this UNIX socket */
        const char *export;    /* export name */
        const char *serial;    /* what the guest reads; at most 20 characters are shown by virtio */
        bool readonly;
        bool shared;           /* other guests may have it, too */
};

struct guest_nic {
        char mac[18];
        char device[16]; /* a tap that is there, ours; of a container: what its end here is to be called */
        char guest[16];  /* of a container: what it calls it */
        unsigned mtu;
};

/* Users of a container. */
enum { GUEST_IDS = 65536 };

/* What runs it. */
enum hypervisor { HYPERVISOR_QEMU, HYPERVISOR_LXC, HYPERVISOR_TEST };

struct guest {
        char uuid[37];
        const char *name;         /* unique on the host, e.g. web-1a2b3c4d */
        const char *title;        /* tenant/name, for virsh list --title */
        unsigned vcpus, vcpus_max; /* max: it may grow to while it runs; 0: it may not */
        uint64_t memory;          /* bytes */
        uid_t uid;                /* QEMU runs as this user; (uid_t)-1: the driver's default */
        gid_t gid;
        const struct guest_disk *disks;
        unsigned ndisks;          /* in boot order */
        const struct guest_nic *nics;
        unsigned nnics;
        const char *console_log;  /* file that grows; kept over restarts of the guest */
        const char *console_sock; /* socket that speaks the serial line */
        const char *agent_sock;   /* socket to the guest's agent; NULL: the guest has no channel */
        const char *kernel;       /* direct kernel boot; NULL: the disk boots */
        const char *initrd;
        const char *cmdline;
        const char *vnc_sock;     /* its screen, made by QEMU's user; nobody gets in before screen();
                                   * NULL: it has none */
        const char *config_drive; /* an image file that it sees as its last disk, read-only; NULL */
        enum hypervisor hypervisor; /* TEST: the driver's own business */
        bool adopted;             /* the engine has its definition, see adopt(); the rest is nothing */
        bool kvm;                 /* only after a probe that booted; else TCG */
        uint64_t memory_max;      /* bytes it may grow to while it runs; 0: it may not */
        unsigned cores, threads;  /* of a socket, of a core; 0 and 0: each processor is a socket */
        const char *cpu;          /* a model of the engine's; NULL or "": the host's, or all of TCG's */
        unsigned numa;            /* nodes that memory and processors are spread over; 0: none */
        uint64_t huge_page;       /* bytes; 0: ordinary pages */
        const char *nvram;        /* UEFI: its variables, a file of this guest's; NULL: BIOS */
        const char *tpm_sock;     /* of a swtpm that waits for its QEMU, TPM 2.0; NULL: it has none */
        bool scsi;                /* disks behind one SCSI controller, else a device each */
        const char *watchdog;     /* what it does: reset, poweroff, pause, inject-nmi; NULL: none */
        const char *boot;         /* disk, cdrom, network: in that order; NULL: disk */
        struct guest_disk cdrom;  /* every guest has a drive; socket NULL: nothing is in it */
        const char *extra;        /* <domain>: what an admin merges in; NULL */
        /* HYPERVISOR_LXC: of the rest it has name, title, vcpus, memory, nics and the console. */
        const char *root;       /* folder that is its root, of users id_base and up */
        const char *init;       /* its first program, a path in it */
        uid_t id_base;          /* its user 0, and group 0, on this host; GUEST_IDS of them are its own */
        const char *config_dir; /* what a config drive would hold, in a folder; NULL */
        bool held;                /* it is made, and does not run */
};

/* What a guest has done since its start; what is not known is 0. */
enum guest_figure {
        GUEST_CPU,        /* nanoseconds, of all its processors */
        GUEST_VCPUS,
        GUEST_MEM_SIZE,   /* bytes, as are all of MEM */
        GUEST_MEM_RSS,    /* of its process */
        GUEST_MEM_TOTAL,  /* as its kernel says by the balloon: all, free, and free with caches dropped */
        GUEST_MEM_FREE,
        GUEST_MEM_USABLE,
        GUEST_RD_OPS,
        GUEST_RD_BYTES,
        GUEST_WR_OPS,
        GUEST_WR_BYTES,
        GUEST_RX_PACKETS, /* received by the guest */
        GUEST_RX_BYTES,
        GUEST_TX_PACKETS,
        GUEST_TX_BYTES,
        GUEST_FIGURES,
};
struct guest_stats {
        uint64_t all[GUEST_FIGURES]; /* of its disks and network devices: their sums */
        struct guest_device {
                char name[16]; /* vda, or the tap */
                uint64_t rd_ops, rd_bytes, wr_ops, wr_bytes, flushes; /* network: rx, tx */
        } disk[32], nic[16];
        unsigned ndisks, nnics;
};

/* Asked now and then by what takes long. */
struct compute_watch {
        void (*progress)(void *arg, uint64_t done, uint64_t total); /* bytes */
        bool (*cancelled)(void *arg);
        void *arg;
};

/* A file or socket of the guest that is elsewhere on the other host; a folder: all that is in it. */
struct guest_path {
        const char *from, *to;
};

/* What becomes of a migration whose time is over before the guest's memory is all there. */
enum guest_late {
        GUEST_LATE_ABORT,    /* the guest goes on where it is; until then it is slowed down more and
                              * more, so that its memory may be caught up with */
        GUEST_LATE_PAUSE,    /* it is halted for the rest */
        GUEST_LATE_POSTCOPY, /* it goes on there at once, and its memory follows: from here on it has
                              * two hosts on which it depends */
};

struct guest_move {
        const char *to;    /* where this host's engine reaches the other one's: a URI */
        const char *data;  /* where that one is to listen for the memory; NULL: its own choice */
        const char *disks; /* and for disks, if any are copied */
        bool tls;
        const struct guest_path *paths;
        unsigned npaths;
        const char *const *copy; /* targets of disks whose bytes go along */
        unsigned ncopy;
        unsigned seconds;
        enum guest_late late;
        /* Often, with bytes; not 0: stop. */
        int (*progress)(void *arg, uint64_t done, uint64_t total);
        /* The guest stands still, and all it wrote is with its disks: hand them over.  Once, and
         * only if we are there at that moment. */
        void (*halted)(void *arg);
        void *arg;
};

enum guest_state {
        GUEST_GONE,    /* not there: never started, ended, or destroyed */
        GUEST_RUNNING,
        GUEST_PAUSED,  /* by us */
        GUEST_STALLED, /* paused by an I/O error of a disk: resume once the disk answers */
        GUEST_CRASHED,
        GUEST_BETWEEN, /* halted, between two hosts */
};
const char *guest_state_name(enum guest_state s);

/* Why a guest left: told with GUEST_GONE events. */
enum guest_reason { GUEST_REASON_NONE, GUEST_REASON_SHUTDOWN, GUEST_REASON_DESTROYED,
                    GUEST_REASON_FAILED };

/* A guest that the engine has had from elsewhere. */
struct guest_found {
        char uuid[37];
        unsigned vcpus;
        uint64_t memory; /* bytes */
        enum guest_state state;
};

struct compute_events {
        void (*changed)(void *arg, const char *uuid, enum guest_state now, enum guest_reason why);
        /* The guest let go of a device that it was asked for and did not give up in time: detach()
         * and unplug() have failed long since.  device: target or MAC.  NULL: not told. */
        void (*left)(void *arg, const char *uuid, const char *device);
        /* The connection to the engine was lost and is back: list everything again. */
        void (*resync)(void *arg);
        void *arg;
};

struct compute;
struct compute_ops {
        const char *name;
        /* All of these: -ENOENT no such guest, -ECONNREFUSED the engine is down (say so, the job
         * tries again), -ETIMEDOUT outcome unknown, -EIO with the engine's words. */
        /* Success if that UUID runs already.  Returns when QEMU runs. */
        int (*start)(struct compute *c, const struct guest *g, struct err **e);
        int (*shutdown)(struct compute *c, const char *uuid, struct err **e); /* asks by ACPI */
        int (*destroy)(struct compute *c, const char *uuid, struct err **e);  /* gone is success */
        int (*reboot)(struct compute *c, const char *uuid, bool hard, struct err **e);
        int (*pause)(struct compute *c, const char *uuid, struct err **e);
        int (*resume)(struct compute *c, const char *uuid, struct err **e);
        /* The guest's memory and devices go to the file at path (made by the engine, readable by
         * nobody else), and the guest with them: suspended to storage.  On failure it goes on as it
         * was.  Takes as long as its memory takes to write.  -ECANCELED: w (may be NULL) said so. */
        int (*save)(struct compute *c, const char *uuid, const char *path,
                    const struct compute_watch *w, struct err **e);
        /* Whether a save to path came to its end: 0, -ENOENT (there is none), -EIO (half of one). */
        int (*saved)(struct compute *c, const char *path, struct err **e);
        /* The guest as it was saved, paused; its disks are exported where they were.  The file
         * stays, and must be gone before the guest goes on: its disks would be newer than it.
         * Success if that guest is there. */
        int (*restore)(struct compute *c, const char *uuid, const char *path, struct err **e);
        /* Presses keys together for a moment: QEMU's names, with spaces: "ctrl alt delete". */
        int (*keys)(struct compute *c, const char *uuid, const char *keys, struct err **e);
        /* Gives it so many processors, up to its vcpus_max; the guest takes them into use itself. */
        int (*set_vcpus)(struct compute *c, const char *uuid, unsigned vcpus, struct err **e);
        /* Gives it so many bytes of memory, up to its memory_max, in pieces of 128 MiB; those it has
         * stay.  Repeatable. */
        int (*set_memory)(struct compute *c, const char *uuid, uint64_t bytes, struct err **e);
        /* Puts the disk into its drive, or nothing (NULL), instead of what is in it.  Repeatable.
         * -EBUSY: the guest keeps the drive shut. */
        int (*media)(struct compute *c, const char *uuid, const struct guest_disk *d,
                     struct err **e);
        /* Its screen lets who says the password (at most 8 characters) in, until then (seconds since
         * 1970), and nobody else. */
        int (*screen)(struct compute *c, const char *uuid, const char *password, int64_t until,
                      struct err **e);
        /* Every guest of the engine that runs, all in one call; of those of others, too. */
        int (*stats)(struct compute *c,
                     void (*each)(void *arg, const char *uuid, const struct guest_stats *s),
                     void *arg, struct err **e);
        /* A non-maskable interrupt: a kernel that is set so dumps itself, or panics. */
        int (*nmi)(struct compute *c, const char *uuid, struct err **e);
        /* Has the guest's agent set a user's password; hash: as in /etc/shadow.  -ENOTCONN no agent
         * listens, -EIO with its words. */
        int (*password)(struct compute *c, const char *uuid, const char *user, const char *hash,
                        struct err **e);
        /* The engine's own description of the guest as it is now; the caller frees. */
        int (*describe)(struct compute *c, const char *uuid, char **ret, struct err **e);
        /* Asks the guest's agent to write out its file systems and to let nothing change them until
         * thaw; one that has done so already does it anew.  Bounded: some seconds for an agent that
         * does not answer, half a minute for one that does.  -ENOTCONN no agent listens: nothing was
         * asked of it; any other failure: thaw, it may be frozen or become so. */
        int (*freeze)(struct compute *c, const char *uuid, struct err **e);
        /* Repeatable.  -ENOTCONN, -ETIMEDOUT: not said to be thawed. */
        int (*thaw)(struct compute *c, const char *uuid, struct err **e);
        /* Idempotent: attached already is success. */
        int (*attach)(struct compute *c, const char *uuid, const struct guest_disk *d,
                      struct err **e);
        /* Returns 0 when the guest's device is really gone (DEVICE_REMOVED, or not in the XML);
         * -ETIMEDOUT when the guest had not let go after timeout_ms. */
        int (*detach)(struct compute *c, const char *uuid, const char *target, int timeout_ms,
                      struct err **e);
        /* attach() and detach() for network devices, known by their MAC. */
        int (*plug)(struct compute *c, const char *uuid, const struct guest_nic *n, struct err **e);
        int (*unplug)(struct compute *c, const char *uuid, const char *mac, int timeout_ms,
                      struct err **e);
        /* The disk's export has grown to size bytes: a guest that is there sees it, at once or when
         * it is resumed.  Repeatable.  -ENOENT also: no such disk; -ETIMEDOUT also: its connection
         * to the server is not back yet. */
        int (*grow)(struct compute *c, const char *uuid, const char *target, uint64_t size,
                    struct err **e);
        int (*state)(struct compute *c, const char *uuid, enum guest_state *ret, struct err **e);
        int (*list)(struct compute *c,
                    int (*each)(void *arg, const char *uuid, enum guest_state s), void *arg,
                    struct err **e);
        /* Takes a guest that somebody else defined, by name or UUID, for ours from now on, and changes
         * nothing of it but that mark.  Repeatable.  -ENOENT, -EINVAL it would not outlive its end,
         * -EBUSY another cloud's. */
        int (*adopt)(struct compute *c, const char *name, struct guest_found *ret, struct err **e);
        /* The mark goes; gone is success. */
        int (*release)(struct compute *c, const char *uuid, struct err **e);
        /* Takes the guest to another host, where its disks, devices and folders are prepared, while it
         * runs.  0: it is gone here.  Else where it is now must be looked at, on both hosts; the
         * rule is that it runs here on as before.  -ECANCELED, -ETIME: it was stopped.  One that is
         * on its way already is waited for.  -ENOTSUP: the engine cannot. */
        int (*migrate)(struct compute *c, const char *uuid, const struct guest_move *m,
                       struct err **e);
        /* After start() and attach(): has the guest's disks (target NULL: all; else that one, the others
         * not looked at) wait for their server when it is away, instead of halting the guest.  Takes as
         * long as requests in flight; repeatable, and not in start() and attach() because nobody needs
         * to wait for it.  What fails is logged, and made up for at the next resume or connection.
         * NULL: nothing of the kind is needed. */
        void (*settle)(struct compute *c, const char *uuid, const char *target);
        void (*close)(struct compute *c);
        /* Makes the engine look at its emulators now (seconds on first use after an install or
         * upgrade), so that no start has to wait for it.  Harmless to repeat. */
        int (*warm)(struct compute *c, struct err **e);
};
struct compute {
        const struct compute_ops *ops;
};

/* What the libvirt driver makes of struct guest, and what it asks of the caller:
 *
 *  - title, cmdline, export, serial and paths are UTF-8 without control characters (-EINVAL);
 *    paths are absolute; a socket's path is shorter than 108 bytes.  name is name_valid().
 *    target is vda to vdz.  memory is rounded down to KiB.
 *  - console_log, console_sock and agent_sock are made by the engine, not by QEMU's user: their
 *    folder must exist, be the engine's to write, and need not be open to the guest's uid.  A
 *    socket left by an earlier run is replaced; the log is appended to.
 *  - vnc_sock is made by QEMU's user, whose folder it is in, with nobody else.
 *  - The disks' sockets, kernel and initrd are opened by QEMU's user: their folders need x and the
 *    files r (a socket: rw) for uid or gid.  Nothing is chowned for it.
 *  - uid and gid mean something where the engine is root (system, embedded); a session's guests
 *    run as its own user and the fields are ignored.
 *  - changed() is called for every guest of the engine, also for those of other programs: ignore
 *    a UUID that is not yours.  The same state may be told twice in a row.  list() tells ours only.
 *  - A disk's server that goes away is waited for, by the guest's requests alone, for 90 s; only
 *    then is the guest paused (GUEST_STALLED).  90 s is long enough for any restart, and short of
 *    the 120 s after which Linux calls a task hung.  pause(), detach() and grow() wait for requests
 *    in flight, so as long as the server is away; destroy() then takes libvirt's 10 s of patience.
 *    A disk that could not be set up so (it is logged) pauses the guest at once; resume() and the
 *    engine's return try again.  libvirt marks the domain as tainted (custom-monitor) for it.
 *  - A stalled guest is resumed by the caller, when told GUEST_STALLED, with a pause that grows from
 *    some 20 ms: QEMU fails the first request that meets a connection on its way back, so one
 *    stall more after the disk's server is back is the rule.
 *  - state() of a guest that is not there is 0 and GUEST_GONE.
 *  - A guest is transient in the engine: nothing is left of it there when it is gone. */
