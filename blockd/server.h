/* The server: pool, exports, connections, control socket.
 *
 * Threads: the main loop accepts; each NBD connection and each control connection has a thread.
 * Locks: `change` is held over a whole change of the export table (its fsyncs included); `lock`
 * guards the tables in memory and is held for moments.  Order: change, lock. */
#pragma once

#include <jansson.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>
#include <uthash.h>
#include "backend/volume/volume.h"
#include "blockd/held.h"
#include "blockd/session.h"
#include "blockd/tls.h"
#include "blockd/wire.h"
#include "common/err.h"

struct checkup;
struct meter;
struct owner;
struct takeover;

enum {
        SERVER_CONNECTIONS = 2048,   /* NBD connections at once */
        SERVER_TCP = 1024,           /* of these over TCP: guests of this host find room still */
        SERVER_PER_EXPORT = 64,      /* of these to one export */
        SERVER_CONTROL = 64,         /* control connections at once */
        SERVER_HANDSHAKE_MS = 10000, /* from accept to transmission */
        SERVER_REST_MS = 1000,       /* a connection that says nothing gives its thread up */
        SERVER_CONTROL_MS = 30000,   /* a control connection that says nothing */
        SERVER_SEND_ROOM = 1 << 20,  /* bytes of replies that a UNIX socket takes */
        SERVER_STACK = 1 << 20,      /* of a thread; touched only as far as used */
        TCP_LISTENERS = 8,           /* addresses */
        TCP_SEEN = 64,               /* addresses of clients without TLS that were warned of */
        EXPORT_ID_SIZE = 64,
};

struct export
{
        UT_hash_handle hh; /* by id */
        char id[EXPORT_ID_SIZE];
        char volume[VOLUME_ID_SIZE];
        uid_t uid;
        gid_t gid;
        bool readonly;
        json_t *clients; /* who may use it over TCP, see clients.h; NULL: nobody */
        char *socket;
        int fd;                    /* listens; -1: its socket could not be made */
        char held[HELD_NAME_SIZE]; /* what fd is held as */
        uint64_t serial;           /* what the event loop knows it by */
        unsigned connections;
        bool closing;
};

/* A connection has a thread while its client talks.  After SERVER_REST_MS of silence the thread is
 * given up: the socket waits in the event loop's set, without buffers, until something comes. */
struct conn {
        struct server *server;
        struct export *export; /* NULL: the shared socket, or TCP that has not opened one yet */
        bool tcp;
        struct wire wire;
        struct session session;
        struct meter *meter; /* in transmission */
        struct stats stats;
        uint8_t *in;      /* SESSION_IN bytes; at rest only what had come of a request, or NULL */
        size_t have;      /* bytes in it */
        atomic_bool park; /* its thread is to give it up between two inputs */
        /* Guarded by the server's lock from here on; at most one of these three. */
        bool resting;  /* the event loop has it */
        bool parked;   /* who asked for it has it */
        bool threaded; /* `thread` has it */
        pthread_t thread;
        char resume[EXPORT_ID_SIZE]; /* what the session is to open again, or "" */
        struct unread {
                uint64_t sent;
                int bytes;
                int64_t since; /* clock_mono(): both are the same */
        } unread;              /* of one that is to be parked */
        struct conn *prev, *next;
};

struct control {
        struct server *server;
        int fd;
        struct control *prev, *next;
};

/* What blockd may be asked for over TCP. */
struct tcp_config {
        const char *listen[TCP_LISTENERS]; /* ADDRESS[:PORT] */
        unsigned n;
        const char *tls_dir; /* NULL: no TLS */
        bool plain;          /* clients without TLS, too */
};

struct tcp {
        int fds[TCP_LISTENERS];
        char held[TCP_LISTENERS][HELD_NAME_SIZE];
        unsigned n, connections;
        struct tls_config *tls;
        bool plain;
        struct in6_addr seen[TCP_SEEN]; /* a ring */
        unsigned nseen;
};

struct server {
        char *state, *run;
        struct volume_pool *pool;
        struct held held; /* until all is ours: what was held and nobody wants is held no more */
        int epfd;         /* listeners */
        int control_fd, shared_fd, spare_fd;
        char control_held[HELD_NAME_SIZE], shared_held[HELD_NAME_SIZE];
        pthread_mutex_t change, lock;
        pthread_cond_t gone; /* a connection ended */
        struct export *exports;
        struct meter *meters;   /* by volume, see meter.h */
        struct checkup *checks; /* by volume: the last of each */
        uint64_t next_serial;
        struct conn *conns;
        struct control *controls;
        unsigned nconns, ncontrols;
        struct tcp tcp;
        int handshake_ms;
        bool stopping;
        unsigned calls;  /* control operations under way */
        bool calls_held; /* none begins: we are being replaced */
        bool frozen;     /* and nothing is accepted any more */
        bool replacing;  /* a replacement is under way */
        bool replaced;   /* everything is the successor's */
        json_t *coming;  /* volumes that the predecessor still has, as the keys; NULL: none */
        struct successor {
                char **argv; /* its command line, without --takeover; NULL: none can be started */
                int state_lock, run_lock;
                pid_t pid;
                bool sound; /* what failed is ours: it can give back what it has */
        } successor;
};

/* Serials. */
enum { LISTEN_CONTROL = 1, LISTEN_SHARED = 2, LISTEN_TCP = 4, LISTEN_EXPORTS = 16 };
#define WATCH_CONN                                                                                 \
        (UINT64_C(1) << 63) /* not a serial but, shifted right by one, a conn at rest              \
                             */

/* server.c */
struct server_config {
        const char *state, *run;
        /* DRIVER[:TARGET], NULL after the last: where volumes are, the first unless told. */
        const char *pools[VOLUME_POOLS + 1];
        bool direct;      /* they are read and written past the page cache */
        const struct owner *owner; /* who we become, owner.h */
};
/* take: what a predecessor gave us, or NULL. */
int server_start(const struct server_config *config, const struct tcp_config *tcp,
                 struct takeover *take, struct server **ret, struct err **e);
/* With the lock: no more (again) new connections. */
int server_freeze(struct server *s, bool frozen);
/* Accepts what is waiting; called by the event loop when epfd is readable. */
void server_accept(struct server *s);
/* Ends all connections, flushes, closes.  Returns NULL. */
struct server *server_stop(struct server *s);
int server_watch(struct server *s, int fd, uint64_t serial);
int server_thread(void *(*run)(void *), void *arg);

/* listen.c: a listening UNIX socket at path, in place of what is there, with that mode. */
int listen_unix(const char *path, mode_t mode, struct err **e);
/* A listening TCP socket: 192.0.2.1, 192.0.2.1:10809, [2001:db8::1] or [2001:db8::1]:10809. */
int listen_tcp(const char *address, struct err **e);

/* tcp.c: listens, on what was held for us if it was. */
int tcp_start(struct server *s, const struct tcp_config *config, struct err **e);
/* No connection may be left. */
void tcp_stop(struct server *s);
/* The session's calls (session.h) for a connection over TCP; arg is a struct conn.  It belongs to
 * the export that it opened last. */
int tcp_open(void *arg, const char *name, struct session_export *ret, struct err **e);
int tcp_list(void *arg, int (*each)(void *session, const char *name), void *session);
int tcp_starttls(void *arg);
/* "192.0.2.7 port 40000, cn:host7" into out; returns out. */
char *tcp_peer(const struct conn *c, char *out, size_t n);

/* conn.c: takes fd; x is NULL for the shared socket and for TCP.  With lock held. */
void conn_start(struct server *s, struct export *x, bool tcp, int fd);
/* What is at rest has something to read, or has ended. */
void conn_wake(struct server *s, const struct conn *c);
/* With the lock: ends it soon. */
void conn_disconnect(struct conn *c);
/* With the lock: has it parked soon, `gone` tells; to be repeated until it is.  SIGUSR1 must have a
 * handler. */
void conn_park(struct conn *c);
/* With the lock: a parked one goes on. */
void conn_revive(struct conn *c);
/* A parked one is closed, and c is gone. */
void conn_free(struct conn *c);
/* One like from, which says everything but what hangs on the session's volume.  Takes its wire,
 * copies its input.  With the lock. */
int conn_adopt(struct server *s, const struct conn *from);

/* exports.c: see control/driver/volume.h for what the calls mean. */
int exports_restore(struct server *s, struct err **e);
int export_add(struct server *s, const struct export *want, char **ret_socket, struct err **e);
int export_remove(struct server *s, const char *id, struct err **e);
/* With lock held: the export, or NULL. */
struct export *export_find(struct server *s, const char *id);
/* With lock held: the export of that id, or of that volume, that the client may use over TCP; tls
 * is NULL for a plain one.  With an empty name the only one there is.  NULL: none, or forbidden. */
struct export *export_of_client(struct server *s, const char *name, const struct tls *tls);
/* With lock held: how many exports the volume has. */
unsigned exports_of(struct server *s, const char *volume);
/* Ends all connections to x (NULL: all there are) and waits until they are gone. */
void exports_disconnect(struct server *s, struct export *x);
void exports_free(struct server *s);

/* checks.c: begins a check in the background.  One with that token (not "") that was begun already
 * is that one.  -EBUSY: another of that volume runs, or as many as may.  how: callbacks are ours.
 */
int check_start(struct server *s, const char *volume, const char *token,
                const struct volume_check *how, struct err **e);
/* Ends that of the volume (NULL: all) and waits until it has. */
void check_cancel(struct server *s, const char *volume);
/* The last one of the volume, as members of the answer. */
void check_show(struct server *s, const char *volume, json_t *answer);
void checks_free(struct server *s);

/* control.c: takes fd. */
void control_start(struct server *s, int fd);
/* No operation begins until it is thawed; returns when none is under way.  -EBUSY: frozen, or one
 * does not end in ten seconds; then it is thawed. */
int control_freeze(struct server *s);
void control_thaw(struct server *s);
/* Takes no more calls and waits until those that run are answered. */
void control_stop(struct server *s);
/* One line to one answer line (caller frees); NULL without memory, or when we were replaced.  Any
 * thread. */
char *control_line(struct server *s, const char *line, size_t n);
