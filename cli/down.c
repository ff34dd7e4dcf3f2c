/* strato down: the mount, stratod, then blockd if no guest needs it. */
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "cli/cli.h"
#include "cli/daemon.h"
#include "cli/lock.h"
#include "cli/mount.h"
#include "cli/proc.h"
#include "cli/tree.h"
#include "common/clock.h"
#include "common/fileio.h"
#include "common/macro.h"

enum {
        END_MS = 30000, /* stratod may be in the middle of a probe */
        PROBE_MS = 5000,
        GUESTS_S = 30, /* to shut down by themselves */
        DESTROY_S = 10,
        GUESTS_MAX = 4096,
        LOOK_USEC = 100000,
};

struct stopping {
        const struct cloud *c;
        const char *tenant;
        const char *verb;
        unsigned failed, told;
};

/* An instance that cannot take the verb now (it is stopping already) is seen again below. */
static int tell(void *arg, const struct row *row)
{
        struct stopping *s = arg;
        _cleanup_free_ char *ctl = NULL;

        if (!state_has_guest(row->state))
                return 0;
        ctl = path_printf("%s/tenants/%s/instances/%s/ctl", s->c->mount, s->tenant, row->name);
        if (!ctl)
                return -ENOMEM;
        if (tree_write(ctl, s->verb, NULL) < 0)
                s->failed++;
        else
                s->told++;
        return 0;
}

/* Writes the verb to each instance that has a guest. */
static int tell_guests(const struct cloud *c, const char *verb, unsigned *told, struct err **e)
{
        _cleanup_(tenants_free) char **tenants = NULL;
        int r;

        r = tree_tenants(c, &tenants, e);
        for (char **t = tenants; r == 0 && *t; t++) {
                struct stopping s = {.c = c, .tenant = *t, .verb = verb};

                r = tree_each(c, *t, "instances", tell, &s, e);
                *told += s.told;
        }
        return r;
}

/* Without stratod there is only the process to ask: QEMU flushes and ends. */
static void signal_guests(const struct cloud *c, int sig)
{
        pid_t pids[GUESTS_MAX];
        unsigned n = proc_guests(c->run, c->state, pids, GUESTS_MAX);

        for (unsigned i = 0; i < MIN(n, (unsigned)GUESTS_MAX); i++) {
                _cleanup_close_ int fd = (int)syscall(SYS_pidfd_open, pids[i], 0);

                if (fd >= 0)
                        syscall(SYS_pidfd_send_signal, fd, sig, NULL, 0);
        }
}

/* Waits until no guest is left; their number when the time is over. */
static unsigned await_guests(const struct cloud *c, int seconds)
{
        int64_t deadline = clock_mono() + (int64_t)seconds * 1000000;
        unsigned n;

        while ((n = proc_guests(c->run, c->state, NULL, 0)) > 0 && clock_mono() < deadline)
                usleep(LOOK_USEC);
        return n;
}

static int count_stopping(void *arg, const struct row *row)
{
        *(unsigned *)arg += streq(row->state, "stopping");
        return 0;
}

/* Waits until stratod knows that the guests are gone and has put away what it had for them on the
 * host; not for long, as its next start would do it, too. */
static void await_known(const struct cloud *c)
{
        int64_t deadline = clock_mono() + DESTROY_S * INT64_C(1000000);
        unsigned n = 1;

        while (n > 0 && clock_mono() < deadline) {
                _cleanup_(tenants_free) char **tenants = NULL;

                n = 0;
                if (tree_tenants(c, &tenants, NULL) < 0)
                        return;
                for (char **t = tenants; *t; t++)
                        if (tree_each(c, *t, "instances", count_stopping, &n, NULL) < 0)
                                return;
                if (n > 0)
                        usleep(LOOK_USEC);
        }
}

/* Asks, then insists: stratod itself forces a guest off that takes longer. */
static int stop_guests(const struct cloud *c, bool mounted, struct err **e)
{
        unsigned n = proc_guests(c->run, c->state, NULL, 0), told = 0;
        int seconds = c->timeout >= 0 ? c->timeout : GUESTS_S;
        char verb[32];

        if (n == 0)
                return 0;
        if (!c->json)
                printf("Stopping %u guest%s.\n", n, n == 1 ? "" : "s");
        fflush(stdout);
        snprintf(verb, sizeof(verb), "stop %d\n", seconds);
        if (!mounted || tell_guests(c, verb, &told, NULL) < 0 || told == 0)
                signal_guests(c, SIGTERM); /* paused, rescued: those can only be ended */
        n = await_guests(c, seconds + DESTROY_S);
        if (n == 0) {
                if (mounted)
                        await_known(c);
                return 0;
        }
        if (mounted)
                tell_guests(c, "stop now\n", &told, NULL);
        else
                signal_guests(c, SIGKILL);
        n = await_guests(c, DESTROY_S);
        if (n > 0 && mounted) {
                signal_guests(c, SIGTERM);
                n = await_guests(c, DESTROY_S);
        }
        if (n > 0 && c->force) {
                signal_guests(c, SIGKILL);
                n = await_guests(c, DESTROY_S);
        }
        if (n > 0) {
                err_set(e, -ETIMEDOUT, "%u guest%s did not stop", n, n == 1 ? "" : "s");
                return err_hint(e, -ETIMEDOUT, "strato down --guests --force");
        }
        if (mounted)
                await_known(c);
        return 0;
}

static int unmount(const struct cloud *c, enum mount_state m, struct err **e)
{
        if (m == MOUNT_NONE || m == MOUNT_FOREIGN)
                return 0;
        if (m == MOUNT_HUNG && !c->force) {
                err_set(e, -ETIMEDOUT, "'%s' does not answer", c->mount);
                return err_hint(e, -ETIMEDOUT, "strato down --force");
        }
        return mount_detach(c->mount, c->force || m == MOUNT_STALE, e);
}

static void print_down(const struct cloud *c, bool ran, unsigned guests)
{
        if (c->json) {
                json_t *j = json_pack("{s:b s:i s:b}", "up", 0, "guests", (int)guests, "blockd",
                                      guests > 0);

                json_dumpf(j, stdout, JSON_COMPACT);
                putchar('\n');
                json_decref(j);
        } else if (guests > 0) {
                printf("The cloud is unmounted. %u guest%s on; blockd stays up for %s.\n"
                       "strato up mounts it again; strato down --guests stops them, too.\n",
                       guests, guests == 1 ? " goes" : "s go",
                       guests == 1 ? "its disks" : "their disks");
        } else {
                puts(ran ? "The cloud is down." : "The cloud was down already.");
        }
}

int verb_down(struct cloud *c, struct err **e)
{
        enum mount_state m = mount_probe(c->mount, PROBE_MS);
        _cleanup_close_ int lock = -1;
        unsigned guests;
        struct stat st;
        pid_t pid;
        bool ran;
        int r;

        if (stat(c->state, &st) < 0 && errno == ENOENT) {
                print_down(c, false, 0);
                return STATUS_OK;
        }
        lock = cloud_lock(c, e);
        if (lock < 0)
                return lock;
        if (chdir("/") < 0) /* or we were in the way ourselves */
                return err_errno(e, -errno, "chdir to /");
        ran = daemon_find(c, BLOCKD, &pid) > 0;
        if (daemon_find(c, STRATOD, &pid) > 0)
                ran = true;
        else if (m == MOUNT_OK)
                m = MOUNT_FOREIGN; /* another cloud's */
        if (c->guests) {
                r = stop_guests(c, m == MOUNT_OK, e);
                if (r < 0)
                        return r;
        }
        r = unmount(c, m, e);
        if (r == 0)
                r = daemon_stop(c, STRATOD, END_MS, c->force, e);
        if (r < 0)
                return r;
        /* stopped between a death of stratod and its next start: the mount died with the holder */
        if (ran && mount_probe(c->mount, PROBE_MS) == MOUNT_STALE)
                mount_detach(c->mount, true, NULL);
        guests = proc_guests(c->run, c->state, NULL, 0);
        if (guests == 0)
                r = daemon_stop(c, BLOCKD, END_MS, c->force, e);
        if (r < 0)
                return r;
        print_down(c, ran, guests);
        return STATUS_OK;
}
