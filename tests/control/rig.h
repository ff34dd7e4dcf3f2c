/* A control plane on a store in memory and drivers that remember; the real drivers have suites of
 * their own, here their answers can be chosen.  One test program a subject; RIG_TEST gives each
 * test a cloud of its own. */
#ifndef TESTS_CONTROL_RIG_H
#define TESTS_CONTROL_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>

#include "backend/store/memory/memory.h"
#include "common/fileio.h"
#include "control/control.h"
#include "control/driver/compute.h"
#include "control/driver/image.h"
#include "control/driver/store.h"
#include "control/driver/volume.h"
#include "control/internal.h"
#include "control/txn.h"

/* What the drivers shall answer, and what they were asked.  Under its lock while jobs run. */
struct fake {
        struct volume_service volumes;
        struct image_service images;
        struct compute compute;
        struct store *store;
        pthread_mutex_t lock;
        int volume_error; /* what create and clone answer */
        int start_error;
        int remove_error;
        int away_error;              /* what import and unexport answer while blockd is "down" */
        struct volume_limits limits; /* set last */
        int limits_error;
        unsigned limits_calls, stats_calls;
        bool hold_after_limits; /* hold_commits() once they are set */
        char stats_id[37];      /* of the volume that has been read */
        int grow_error;
        unsigned pings; /* counted from 1 on: the second fails */
        int rekey_error;
        unsigned rekeys;
        char opens[PASSPHRASE_SIZE]; /* the encrypted volume, of which there is one */
        char family[37];
        int freeze_error;
        unsigned thaw_failures; /* so often thaw fails first */
        unsigned freezes, thaws;
        bool frozen, paused, taken_running; /* a snapshot of a guest that ran */
        bool running;
        int save_error, restore_error, vcpus_error;
        int memory_error, media_error, screen_error, detach_error;
        unsigned vcpus; /* given last */
        uint64_t memory;
        char cd[40];       /* export in the drive; "" */
        char uuid[37];     /* of the guest started last */
        char told[256]; /* keys or a password, or "nmi" */
        char boots[16]; /* the first disk of the guest started last */
        uint64_t grown; /* what the guest was last told of its disk's size */
        bool snapshot_asked, snapshot_taken, early; /* early: the last shrink came before one */
        unsigned creates, clones, removes, exports, starts;
        struct control *c;
        uint64_t owner; /* the default tenant */
};
extern struct fake fake;

/* Set before rig_setup(): the cloud has networks. */
struct network_service;
extern int (*rig_network)(void *arg, struct network_service **ret, struct err **e);

/* The store below the control plane. */
struct refusing {
        struct store store;
        struct store *real;
        bool refuse;
        /* Or told to keep who commits waiting. */
        pthread_mutex_t lock;
        pthread_cond_t cond;
        bool hold;
        struct store_txn *held[4];
        unsigned nheld;
};
extern struct refusing refusing;

/* Commits wait from now on; until n of them do; they go on. */
void hold_commits(void);
void await_held(unsigned n);
void release_commits(void);

extern const struct caller root, stranger;

/* Starts fake.c on fake.store, which may have been used before. */
void start_control(void);

int rig_setup(void **state);
int rig_teardown(void **state);
#define RIG_TEST(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)
/* main's whole work: consoles have a directory while the tests run. */
#define rig_run(tests) rig_done(cmocka_run_group_tests(tests, rig_make_dir, rig_remove_dir))
int rig_make_dir(void **state);
int rig_remove_dir(void **state);
int rig_done(int r);

/* The words of the last failure. */
extern struct err *last;
#define assert_words(text) assert_non_null(strstr(err_msg(last), (text)))
/* Keeps them: say(f(.., &e), &e).  Returns r. */
int say(int r, struct err **e);

/* What users do, as root in the default tenant; make* fail the test, the others answer 0 or a
 * negative errno. */
uint64_t make(const struct kind *k, const char *name); /* mkdir */
uint64_t make_type(const char *name);                  /* a volume type */
uint64_t volume(const char *name);                     /* one of 1M, available */
int set(uint64_t no, const struct kind *k, const char *attr, const char *text);
int link_to(uint64_t no, const struct kind *k, const char *def, const char *name,
            const char *target);
int verb(uint64_t no, const char *text);
int drop(uint64_t no);                          /* rmdir */
int quota(uint64_t tenant, const char *line);   /* a line of its file */
int wait_for(uint64_t no, const char *state);   /* 10 seconds at most */
void settle(uint64_t no);                       /* until no job is live that targets it */
const char *state_of(uint64_t no);              /* "gone" when it is */
uint64_t stored(uint64_t no, const char *attr); /* a number */
uint64_t used(const char *what);                /* of the tenant's `usage` */

void set_volume_error(int code); /* see struct fake */
void guest_off(void);            /* it went by itself */
uint64_t told(void);             /* the size that the guest was last told */

#endif
