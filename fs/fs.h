/* The mount: the cloud as files, through libfuse's low-level interface.
 *
 * Purpose: fs/ knows directories, text, links and bytes, never a particular kind: the tables of
 * control/kind.h say what there is.  Reads are answered from the model in memory.  Each change is
 * one call of control/control.h, made with no lock held; it may keep a FUSE worker for one fsync.
 * Bytes of volumes go through libnbd on a thread of their own; nothing here waits for blockd. */
#pragma once

#include <stdbool.h>
#include "common/err.h"
#include "control/control.h"

struct fs;

/* Who keeps the session while no process of ours lives: the FUSE device and a memory file. */
struct fs_holder {
        int device, memory; /* of the process before, -1: none.  Taken over */
        /* Has both kept, from the start of the session; and no more, before it ends. */
        void (*keep)(void *arg, int device, int memory);
        void (*drop)(void *arg);
        bool record; /* a record of requests, though the kernel could send them again: for tests */
};

struct fs_config {
        struct control *control; /* started; outlives the fs */
        const char *mountpoint;  /* absolute path of an existing directory */
        const char *state;       /* folder whose free space statfs(2) reports; NULL: none */
        const char *fsname;      /* first column of mount(8); NULL: "stratofs" */
        bool allow_other;        /* root's mount; permission checks are always the kernel's */
        /* Optional: called once, on a worker, when the mount begins to answer. */
        void (*ready)(void *arg);
        void *arg;
        const struct fs_holder *holder; /* NULL: the session ends with us */
        /* A request that a worker is at for so many seconds ends the process by SIGABRT; 0: never.
         * alive (optional) is called four times in that time while there is none. */
        unsigned watchdog;
        void (*alive)(void *arg);
        const char *watch; /* path of stratofs-watch, NULL: inotify sees what users do, no more */
};

/* Mounts.  A dead mount in the way (ENOTCONN) is taken off first.  Requests wait until fs_serve().
 * Strings of cfg are copied.  -errno with words. */
int fs_open(const struct fs_config *cfg, struct fs **ret, struct err **e);
/* Answers requests on up to 64 threads; returns 0 after umount(8) or fs_stop(), else -errno. */
int fs_serve(struct fs *fs);
/* Makes fs_serve() return.  Any thread but a FUSE worker; waits until it has. */
void fs_stop(struct fs *fs);
/* The numbers that objects had when the session in this memory file was served: none below the
 * result's may be given again, as the kernel knows nodes by them.  -1, a strange file: 0. */
uint64_t fs_held_numbers(int memory);
/* The images that are coming in through it (struct control_config); the caller frees. */
size_t fs_held_uploads(int memory, uint64_t **ret);
/* Unmounts (lazily when files are open) and frees.  After fs_serve() has returned. */
void fs_close(struct fs *fs);
