/* What the guest tests stand on: a folder, NBD servers, a console to wait on, events to wait for.
 * Every wait has a deadline and fails the test when it passes. */
#pragma once

#include <stdbool.h>
#include <pthread.h>

#include "backend/compute/compute.h"

enum { WAIT_MS = 120000, EVENTS_MAX = 1024, RECONNECT_S = 5 };

struct event {
        char uuid[37];
        enum guest_state state;
        enum guest_reason why;
};

struct rig {
        char dir[64];
        enum compute_mode mode;
        char *kernel, *initrd;
        pthread_mutex_t lock;
        pthread_cond_t cond;
        struct event events[EVENTS_MAX];
        unsigned nevents, seen, resyncs;
        struct compute *c;
};

/* Where dir is NULL a new folder is made; else that one is used. */
struct rig *rig_new(enum compute_mode mode, const char *dir);
/* Destroys what runs, closes, removes the folder. */
void rig_free(struct rig *r);
void rig_open(struct rig *r);
int rig_try_open(struct rig *r, struct err **e);
void rig_close(struct rig *r);

/* The file behind that disk, made or made larger to be of that size; its path. */
char *disk_file(struct rig *r, const char *name, off_t size);
/* An NBD server of that file, at least 64 MiB, on DIR/disk/NAME.sock, which uid may use.  Its pid.
 */
pid_t disk_start(struct rig *r, const char *name, uid_t uid);
/* kill -9, and waits for it as its parent. */
void disk_kill(pid_t pid);

/* The next event of that guest that is not one of its earlier ones must come, and be this. */
void expect_event(struct rig *r, const char *uuid, enum guest_state s, enum guest_reason why);
/* Whether the newest event of that guest is this. */
bool last_event_is(struct rig *r, const char *uuid, enum guest_state s);
/* Whether that guest was ever so since forget_events(). */
bool saw_event(struct rig *r, const char *uuid, enum guest_state s);
/* Forgets the events so far. */
void forget_events(struct rig *r);
void expect_resync(struct rig *r, unsigned count);

/* Waits until the file holds the words after offset `from`; the offset behind them. */
size_t expect_words(const char *log, const char *words, size_t from);
/* The same, with a call every tick_ms meanwhile. */
size_t expect_words_or(const char *log, const char *words, size_t from, int tick_ms,
                       void (*tick)(void *arg), void *arg);
/* Fails when the words are there. */
void expect_no_words(const char *log, const char *words, size_t from);
size_t file_size(const char *path);

/* Runs argv; its pid.  Its stdout is *out when that is not NULL. */
pid_t spawn(const char *const *argv, int *out, int pass_fd);
/* The pid of the guest's QEMU, 0 when there is none. */
pid_t qemu_pid(const char *uuid);
/* A guest of this rig: 192 MiB, direct boot, console files in DIR/console. */
struct guest rig_guest(struct rig *r, unsigned number, const struct guest_disk *disks,
                       unsigned ndisks);
struct guest_disk rig_disk(struct rig *r, const char *target, const char *name, const char *serial);
char *fmt(const char *f, ...) _printf_(1, 2); /* lives until the process ends */
