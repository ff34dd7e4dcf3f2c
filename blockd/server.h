/* The server: pool, exports, connections, control socket.
 *
 * Threads: the main loop accepts; each NBD connection and each control connection has a thread.
 * Locks: `change` is held over a whole change of the export table (its fsyncs included); `lock`
 * guards the tables in memory and is held for moments.  Order: change, lock. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>
#include <jansson.h>
#include <uthash.h>
#include "backend/volume/volume.h"
#include "blockd/held.h"
#include "blockd/session.h"
#include "blockd/wire.h"
#include "common/err.h"

struct meter;
struct takeover;

enum {
        SERVER_CONNECTIONS = 2048,   /* NBD connections at once */
        SERVER_PER_EXPORT = 64,      /* of these to one export's socket */
        SERVER_CONTROL = 64,         /* control connections at once */
        SERVER_HANDSHAKE_MS = 10000, /* from accept to transmission */
        SERVER_REST_MS = 1000,       /* a connection that says nothing gives its thread up */
        SERVER_CONTROL_MS = 30000,   /* a control connection that says nothing */
        SERVER_STACK = 1 << 20,      /* of a thread; touched only as far as used */
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
        struct export *export; /* NULL: the shared socket */
        struct wire wire;
        struct session session;
        struct meter *meter; /* in transmission */
        struct stats stats;
        uint8_t *in; /* SESSION_IN bytes; at rest only what had come of a request, or NULL */
        size_t have; /* bytes in it */
        char resume[VOLUME_ID_SIZE]; /* the session's volume, to be opened again; or "" */
        atomic_bool park;            /* its thread is to give it up between two inputs */
        /* Guarded by the server's lock: at most one of these. */
        bool resting;  /* the event loop has it */
        bool parked;   /* who asked for it has it */
        bool threaded; /* `thread` has it */
        pthread_t thread;
        struct conn *prev, *next;
};

struct control {
        struct server *server;
        int fd;
        struct control *prev, *next;
};

struct server {
        char *state, *run;
        struct volume_pool *pool;
        struct held held; /* while starting */
        int epfd;         /* listeners */
        int control_fd, shared_fd, spare_fd;
        char control_held[HELD_NAME_SIZE], shared_held[HELD_NAME_SIZE];
        pthread_mutex_t change, lock;
        pthread_cond_t gone; /* a connection ended */
        struct export *exports;
        struct meter *meters; /* by volume, see meter.h */
        uint64_t next_serial;
        struct conn *conns;
        struct control *controls;
        unsigned nconns, ncontrols;
        bool stopping;
        unsigned calls; /* control operations under way */
        bool frozen;    /* none begins, nothing is accepted: we are being replaced */
        bool replacing; /* a replacement is under way */
        bool replaced;  /* everything is the successor's */
        json_t *coming; /* volumes that the predecessor still has, as the keys; NULL: none */
        struct successor {
                char **argv; /* its command line, without --takeover; NULL: none can be started */
                int state_lock, run_lock;
                pid_t pid;
        } successor;
};

enum { LISTEN_CONTROL = 1, LISTEN_SHARED = 2, LISTEN_EXPORTS = 16 }; /* serials */
#define WATCH_CONN                                                                                 \
        (UINT64_C(1) << 63) /* not a serial but, shifted right by one, a conn at rest              \
                             */

/* server.c */
/* direct: volumes are read and written past the page cache.  take: what a predecessor gave us, or
 * NULL. */
int server_start(const char *state, const char *run, bool direct, struct takeover *take,
                 struct server **ret, struct err **e);
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

/* conn.c: takes fd. With the lock. */
void conn_start(struct server *s, struct export *x, int fd);
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
/* Takes fd and copies have bytes of input; the session is filled but for what hangs on its volume.
 * With the lock. */
int conn_adopt(struct server *s, struct export *x, int fd, const struct session *session,
               const char *volume, const uint8_t *in, size_t have);

/* exports.c: see control/driver/volume.h for what the calls mean. */
int exports_restore(struct server *s, struct err **e);
int export_add(struct server *s, const struct export *want, char **ret_socket, struct err **e);
int export_remove(struct server *s, const char *id, struct err **e);
/* With lock held: the export, or NULL; how many exports the volume has. */
struct export *export_find(struct server *s, const char *id);
unsigned exports_of(struct server *s, const char *volume);
/* Ends all connections to x (NULL: all there are) and waits until they are gone. */
void exports_disconnect(struct server *s, struct export *x);
void exports_free(struct server *s);

/* control.c: takes fd. */
void control_start(struct server *s, int fd);
/* No operation begins until it is thawed; returns when none is under way.  -EBUSY: frozen. */
int control_freeze(struct server *s);
void control_thaw(struct server *s);
/* Takes no more calls and waits until those that run are answered. */
void control_stop(struct server *s);
/* One line to one answer line (caller frees); NULL without memory, or when we were replaced.  Any
 * thread. */
char *control_line(struct server *s, const char *line, size_t n);
