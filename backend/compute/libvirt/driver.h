/* The driver's insides.
 *
 * Threads: one runs libvirt's event loop (every callback of libvirt's comes there), `link` opens
 * a lost connection again, and embedded mode has a reaper.  Operations run on their callers'
 * threads.  `lock` guards what is below it and is never held over a call into libvirt or the
 * caller's callbacks; `seats` are, one guest's at a time. */
#pragma once

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "backend/compute/compute.h"

struct reaper;
struct _xmlDoc;
struct _xmlNode;

enum { EVENT_KINDS = 5, SEAT_LOCKS = 16, RECONNECT_S = 90 };

/* A device that a guest was asked to let go of.
 *
 * libvirt 9.0 dies of a second request that meets QEMU between "removed" and libvirt's notice of
 * it (it audits a disk that it has freed: qemuDomainDetachDeviceLive, device_del failing), and in
 * embedded mode we die with it.  So requests are remembered over calls, and repeated only when the
 * guest had ample time to answer the last one. */
struct unplug {
        struct unplug *next;
        char uuid[VIR_UUID_STRING_BUFLEN];
        char *alias;
        char target[20];  /* or MAC */
        int64_t asked;    /* monotonic microseconds of the last request, or of the guest's going on
                           * after it; 0: none stands */
        unsigned waiters; /* calls that hold it */
        bool removed;     /* the guest let go, or is gone itself */
        bool refused;     /* the guest said no */
};

struct driver {
        struct compute base;
        enum compute_mode mode;
        char *uri;
        char *root; /* embed: libvirt's own folder */
        char *owner;
        char *console;                     /* lxc: the program that serves consoles */
        int reconnect;                     /* seconds */
        pthread_mutex_t seats[SEAT_LOCKS]; /* one disk's nodes are changed by one thread; held over
                                            * calls into libvirt */
        struct compute_events ev;
        struct reaper *reaper; /* embed only, else NULL */

        pthread_t link;
        bool loop_held, link_started;
        int callbacks[EVENT_KINDS]; /* the connection's; the link thread's business */

        pthread_mutex_t lock;
        pthread_cond_t cond; /* CLOCK_MONOTONIC: conn, lost, closing, an unplug changed */
        virConnectPtr conn;  /* NULL while the engine is down */
        int64_t opened;      /* conn was, monotonic microseconds */
        char *down;          /* the words of why */
        bool lost;           /* conn died and is the link thread's to replace */
        bool asked;          /* somebody needs the engine now: try without the pause */
        unsigned tries;      /* attempts to connect again so far */
        bool closing;
        struct unplug *unplugs;
};

static inline struct driver *driver(struct compute *c)
{
        return (struct driver *)c;
}

/* loop.c: libvirt's event loop is the process's, so drivers share the thread that runs it. */
int loop_hold(struct err **e);
void loop_drop(void); /* the last one ends it */

/* connect.c */

/* Whether a daemon is at the other end. */
static inline bool link_remote(const struct driver *d)
{
        return d->mode != COMPUTE_EMBED && d->mode != COMPUTE_TEST;
}

/* Opens and registers for events.  Called with the event loop running. */
int link_open(struct driver *d, struct err **e);
/* The thread that brings a lost connection back, with growing pauses of 0.1 to 5 s. */
void *link_run(void *arg);
/* Ends the connection. */
void link_close(struct driver *d);
/* A reference to the connection, or NULL and -ECONNREFUSED's words.  Drop with virConnectClose().
 */
virConnectPtr link_get(struct driver *d, struct err **e);
/* Whether the driver is being closed: who waits for that waits for the link thread. */
static inline bool link_closing(struct driver *d)
{
        WITH_LOCK(&d->lock);
        return d->closing;
}
static inline void conn_closep(virConnectPtr *c)
{
        if (*c)
                virConnectClose(*c);
}
#define _cleanup_conn_ _cleanup_(conn_closep)
static inline void dom_freep(virDomainPtr *dom)
{
        if (*dom)
                virDomainFree(*dom);
}
#define _cleanup_dom_ _cleanup_(dom_freep)

/* error.c */

/* libvirt's last error of this thread as code and words.  conn may be NULL. */
int virt_error(virConnectPtr conn, struct err **e);

/* event.c */

/* Fills d->callbacks.  On failure what was registered before is gone again. */
int events_register(struct driver *d, virConnectPtr conn, struct err **e);
/* libvirt's callbacks hold the connection: without this an embedded one never closes. */
void events_drop(struct driver *d, virConnectPtr conn);
/* What libvirt's state and reason are to us. */
enum guest_state guest_state_of(int state, int reason);

/* unplug.c */

/* The record for that device, made when there is none; NULL without memory.  Give it back. */
struct unplug *unplug_get(struct driver *d, const char *uuid, const char *alias,
                          const char *target);
/* gone: the device is known to have left, there is nothing more to remember. */
void unplug_put(struct driver *d, struct unplug *u, bool gone);
/* Whether to send a request now; if so it is taken for sent. */
bool unplug_due(struct driver *d, struct unplug *u);
/* The request failed. */
void unplug_not_asked(struct driver *d, struct unplug *u);
/* Waits for the guest's answer, at most until deadline (monotonic microseconds) or until it is time
 * to ask again. */
enum unplug_answer { UNPLUG_NONE, UNPLUG_REMOVED, UNPLUG_REFUSED };
enum unplug_answer unplug_wait(struct driver *d, struct unplug *u, int64_t deadline);
/* Events: alias NULL means the whole guest is gone. */
void unplug_removed(struct driver *d, const char *uuid, const char *alias);
void unplug_refused(struct driver *d, const char *uuid, const char *alias);
/* The guest runs again, and answers only from now on. */
void unplug_resumed(struct driver *d, const char *uuid);
void unplug_forget_all(struct driver *d);

/* disk.c */

/* -EIO when the disk's socket is not there.  libvirt would fail, too, but only sometimes catches
 * what QEMU said about it. */
int disk_present(const struct guest_disk *disk, struct err **e);

/* xml.c */

#define METADATA_URI "urn:stratofs:guest:1"
/* The domain's XML; the caller frees.  dac: give QEMU the guest's uid.  -EINVAL for text that has
 * no place in it. */
int xml_domain(const struct guest *g, const char *owner, bool dac, char **ret, struct err **e);
/* One disk's XML, for hot plugging; the caller frees. */
int xml_disk(const struct guest_disk *disk, bool scsi, char **ret, struct err **e);
/* The CD drive with that in it, NULL: empty. */
int xml_media(const struct guest_disk *disk, bool scsi, char **ret, struct err **e);
int xml_nic(const struct guest_nic *nic, char **ret, struct err **e);
/* What a live domain's XML says about the disk at target.  0 with found false when there is none.
 * The caller frees the texts. */
struct disk_found {
        bool found, readonly;
        bool nbd;       /* over NBD on a UNIX socket */
        bool scsi;
        unsigned index; /* of QEMU's nodes: libvirt-INDEX-format; 0 unknown */
        char *alias, *socket, *export;
};
int xml_find_disk(const char *xml, const char *target, struct disk_found *ret, struct err **e);
/* The network device with that MAC: found and alias only. */
int xml_find_nic(const char *xml, const char *mac, struct disk_found *ret, struct err **e);
/* Calls each for every disk; what it is given lives for the call. */
void xml_each_disk(const char *xml, void (*each)(void *arg, const struct disk_found *f), void *arg);
void disk_found_done(struct disk_found *f);
/* The XML with other paths: in each attribute and text that is one of them, or a file in one.  The
 * caller frees. */
int xml_move(const char *xml, const struct guest_path *paths, unsigned n, char **ret, struct err **e);
/* The owner in a guest's <metadata> element; NULL when there is none.  The caller frees. */
char *xml_owner(const char *metadata);

/* Whether the guest's disks are SCSI. */
bool xml_is_scsi(const char *xml);
/* What guest memory that XML has, in bytes: what it started with and every piece plugged in. */
int xml_memory_size(const char *xml, uint64_t *ret, struct err **e);

/* xml-lxc.c */
/* A container's XML; the caller frees. */
int xml_container(const struct guest *g, const char *owner, char **ret, struct err **e);
/* Of a container that runs: its terminal on this host, and what its mark says of its console; NULL
 * where there is none.  The caller frees each. */
struct container_found {
        char *terminal, *log, *socket;
};
int xml_find_container(const char *xml, struct container_found *ret, struct err **e);
void container_found_done(struct container_found *f);
/* Calls each for every network device, by its name on this host. */
void xml_each_nic(const char *xml, void (*each)(void *arg, const char *device), void *arg);
/* xml.c: shared with it */
int xml_check_text(const char *what, const char *s, struct err **e);
int xml_check_path(const char *what, const char *path, size_t max, struct err **e);
int xml_check_nic(const struct guest_nic *n, struct err **e);
struct _xmlNode *xml_new_doc(const char *root, struct _xmlDoc **ret);
/* The mark of ours; gives its node. */
struct _xmlNode *xml_mark(struct _xmlNode *domain, const char *owner);

/* lxc.c: containers' own struct compute_ops; what they lack is NULL. */
extern const struct compute_ops lxc_ops;

/* lxc-console.c: sees to it that the container's console is served; failures are logged. */
void console_ensure(struct driver *d, virDomainPtr dom);

/* domain.c: shared with it */
bool guest_is_ours(struct driver *d, virDomainPtr dom); /* this cloud started it */
bool guest_is_active(virConnectPtr conn, const char *uuid);
virDomainPtr guest_create(virConnectPtr conn, const char *xml, unsigned flags);

/* xml-board.c, xml-extra.c: parts of xml_domain(); nodes are libxml2's. */
#define XML_CDROM "sda" /* the drive's name, on any bus */
enum { CDROM_TARGET = 30, DIMM_MIB = 128, DIMM_SLOTS = 16 };
typedef struct _xmlNode xml_node;
int xml_check_board(const struct guest *g, struct err **e);
void xml_firmware(xml_node *os, const struct guest *g);
void xml_memory(xml_node *root, const struct guest *g);
void xml_cpu(xml_node *root, const struct guest *g);
/* Place in the boot order of the n-th device of a sort, 0: none. */
unsigned xml_boot_order(const struct guest *g, const char *sort, unsigned n);
void xml_cdrom(xml_node *devices, const struct guest_disk *d, bool scsi, unsigned order);
/* password NULL: one that nobody knows, which has expired. */
void xml_screen(xml_node *devices, const char *sock, const char *password, int64_t until);
/* TPM, watchdog, balloon. */
void xml_board_devices(xml_node *devices, const struct guest *g);
/* Puts extra's elements into the domain; -EINVAL with words if it touches what is made here. */
int xml_merge(xml_node *domain, const char *extra, struct err **e);
/* Whether xml_merge() would take it. */
int xml_check_extra(const char *extra, struct err **e);
struct _xmlDoc *xml_parse(const char *xml); /* xml.c */
int xml_dump(struct _xmlDoc *doc, char **ret, struct err **e);
/* The screen with that password, and a piece of memory, for a running guest; the caller frees. */
int xml_screen_device(const char *sock, const char *password, int64_t until, char **ret,
                      struct err **e);
int xml_dimm(uint64_t bytes, char **ret, struct err **e);

/* seat.c: see there.  Any thread; they wait for requests in flight, which takes as long as the
 * disk's server is away. */

/* Gives the disk's node its reconnect-delay unless it has it; again: makes it anew in any case, so
 * that QEMU sees the export's size.  -EIO with QEMU's words, -ECONNREFUSED. */
int seat_disk(struct driver *d, virDomainPtr dom, const struct disk_found *f, bool again,
              struct err **e);
/* Every disk of the guest, until the driver closes; failures are logged. */
void seat_guest(struct driver *d, virDomainPtr dom);
/* The same for one disk, which has just come: the others are not looked at. */
void seat_target(struct driver *d, virDomainPtr dom, const char *target);
/* Tells the guest that the disk has size bytes, which its node knows already. */
int seat_resize(virDomainPtr dom, const struct disk_found *f, uint64_t size, struct err **e);

/* seat.c: a command of QEMU's monitor.  Takes args (NULL: none); -EIO with QEMU's words. */
struct json_t;
int monitor(virDomainPtr dom, const char *command, struct json_t *args, struct err **e);

/* domain.c: a connection and the guest; -ENOENT, -ECONNREFUSED. */
int guest_find(struct compute *c, const char *uuid, virConnectPtr *conn, virDomainPtr *dom,
               struct err **e);
/* What a failed call on a domain comes to: a guest that went away meanwhile is -ENOENT. */
int guest_failed(virConnectPtr conn, virDomainPtr dom, const char *uuid, struct err **e);

/* domain.c: seat_guest() for all guests of ours. */
void seat_all(struct driver *d);

/* domain.c, disk.c, agent.c, save.c, keys.c: struct compute_ops */
void op_close(struct compute *c); /* open.c */
int op_start(struct compute *c, const struct guest *g, struct err **e);
int op_adopt(struct compute *c, const char *name, struct guest_found *ret, struct err **e);
int op_release(struct compute *c, const char *uuid, struct err **e);
/* adopt.c: starts a domain as it is defined; one that runs is success. */
int adopted_start(struct driver *d, virConnectPtr conn, const char *uuid, struct err **e);
int op_shutdown(struct compute *c, const char *uuid, struct err **e);
int op_destroy(struct compute *c, const char *uuid, struct err **e);
int op_reboot(struct compute *c, const char *uuid, bool hard, struct err **e);
int op_pause(struct compute *c, const char *uuid, struct err **e);
int op_resume(struct compute *c, const char *uuid, struct err **e);
int op_save(struct compute *c, const char *uuid, const char *path, const struct compute_watch *w,
            struct err **e);
int op_saved(struct compute *c, const char *path, struct err **e);
int op_restore(struct compute *c, const char *uuid, const char *path, struct err **e);
int op_keys(struct compute *c, const char *uuid, const char *keys, struct err **e);
int op_set_vcpus(struct compute *c, const char *uuid, unsigned vcpus, struct err **e);
int op_set_memory(struct compute *c, const char *uuid, uint64_t bytes, struct err **e);
int op_media(struct compute *c, const char *uuid, const struct guest_disk *d, struct err **e);
int op_screen(struct compute *c, const char *uuid, const char *password, int64_t until,
              struct err **e);
int op_stats(struct compute *c,
             void (*each)(void *arg, const char *uuid, const struct guest_stats *s), void *arg,
             struct err **e);
int op_describe(struct compute *c, const char *uuid, char **ret, struct err **e);
int op_nmi(struct compute *c, const char *uuid, struct err **e);
int op_password(struct compute *c, const char *uuid, const char *user, const char *hash,
                struct err **e);
int op_freeze(struct compute *c, const char *uuid, struct err **e);
int op_thaw(struct compute *c, const char *uuid, struct err **e);
int op_state(struct compute *c, const char *uuid, enum guest_state *ret, struct err **e);
int op_list(struct compute *c, int (*each)(void *arg, const char *uuid, enum guest_state s),
            void *arg, struct err **e);
int op_warm(struct compute *c, struct err **e);
int op_attach(struct compute *c, const char *uuid, const struct guest_disk *disk, struct err **e);
void op_settle(struct compute *c, const char *uuid, const char *target);
int op_detach(struct compute *c, const char *uuid, const char *target, int timeout_ms,
              struct err **e);
int op_plug(struct compute *c, const char *uuid, const struct guest_nic *n, struct err **e);
int op_unplug(struct compute *c, const char *uuid, const char *mac, int timeout_ms, struct err **e);
/* migrate.c */
int op_migrate(struct compute *c, const char *uuid, const struct guest_move *m, struct err **e);
int op_grow(struct compute *c, const char *uuid, const char *target, uint64_t size, struct err **e);

/* reap.c: adopted processes of the embedded mode.
 *
 * QEMU makes itself a daemon, and libvirt's kill(pid, 0) takes a zombie for a live process: a
 * destroy, and libvirt's notice of a death, last as long as somebody leaves QEMU unreaped.  In a
 * container process 1 may never reap.  So this process adopts (PR_SET_CHILD_SUBREAPER) and reaps
 * at once what it adopted.  What it started itself is not touched: a direct child is in our
 * session or leads one of its own, an adopted daemon is neither.  (libvirt's emulator probes lead a
 * session, too: those go by their name.) */
int reaper_start(struct reaper **ret, struct err **e);
void reaper_stop(struct reaper *r);
/* +1 and -1, which nest: adopted children are looked for every 20 ms between them and for a second
 * after. */
void reaper_busy(struct reaper *r, int change);
/* Has the guest's QEMU (its pid file is below libvirt's root) reaped when it dies, whenever that
 * is.  Nothing happens if it is no child of ours: one from before a restart is process 1's. */
void reaper_watch_guest(struct reaper *r, const char *root, const char *name);
/* The same for all that run, when an embedded driver is opened again in the same process. */
void reaper_watch_all(struct reaper *r, const char *root);
