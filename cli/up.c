/* strato up: whatever runs is left, what is missing is started. */
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/daemon.h"
#include "cli/lock.h"
#include "cli/mount.h"
#include "cli/places.h"
#include "common/clock.h"
#include "common/macro.h"

enum {
        BLOCKD_MS = 30000,
        STRATOD_MS = 120000, /* the first start may wait for libvirt to ask each QEMU what it is */
        PROBE_MS = 5000,
        END_MS = 30000, /* stratod may be in the middle of a probe */
};

static int start_ms(const struct cloud *c, int usual)
{
        return c->timeout >= 0 ? c->timeout * 1000 : usual;
}

/* 1 started, 0 ran before. */
static int up_blockd(const struct cloud *c, struct err **e)
{
        pid_t pid;
        int r;

        r = daemon_find(c, BLOCKD, &pid);
        if (r < 0)
                return err_errno(e, r, "look for blockd");
        if (r > 0)
                return c->replace ? daemon_replace(c, BLOCKD, start_ms(c, BLOCKD_MS), e) : 0;
        r = daemon_start(c, BLOCKD, start_ms(c, BLOCKD_MS), e);
        return r < 0 ? r : 1;
}

/* A stratod without its mount is on its way out: somebody unmounted it. */
static int settle_stratod(const struct cloud *c, struct err **e)
{
        _cleanup_free_ char *known = places_recall(c);
        bool elsewhere =
                known && !streq(known, c->mount) && mount_probe(known, PROBE_MS) == MOUNT_OK;

        switch (mount_probe(c->mount, PROBE_MS)) {
        case MOUNT_OK:
                return 0;
        case MOUNT_HUNG:
                err_set(e, -ETIMEDOUT, "stratod runs, but '%s' does not answer", c->mount);
                return err_hint(e, -ETIMEDOUT, "strato down --force; strato up");
        default:
                if (!elsewhere && daemon_await_end(c, STRATOD, END_MS) == 0)
                        return 1;
                err_set(e, -EBUSY, "the cloud in '%s' is mounted on '%s'", c->state,
                        known ? known : "another folder");
                return err_hint(e, -EBUSY,
                                "strato down, then up; or --state DIR for another cloud");
        }
}

/* The mount stays meanwhile, and answers when the new one does; or the new one mounts anew. */
static int replace_stratod(const struct cloud *c, struct err **e)
{
        int64_t end = clock_mono() + start_ms(c, STRATOD_MS) * INT64_C(1000);
        enum mount_state m;
        int r;

        r = daemon_replace(c, STRATOD, start_ms(c, STRATOD_MS), e);
        if (r <= 0)
                return r;
        while ((m = mount_probe(c->mount, start_ms(c, STRATOD_MS))) != MOUNT_OK &&
               clock_mono() < end)
                usleep(10000);
        if (m != MOUNT_OK)
                return err_set(e, -EIO, "stratod was replaced, but '%s' does not answer", c->mount);
        return r;
}

/* 1 started, 0 ran before. */
static int up_stratod(const struct cloud *c, struct err **e)
{
        pid_t pid;
        int r;

        r = daemon_find(c, STRATOD, &pid);
        if (r < 0)
                return err_errno(e, r, "look for stratod");
        if (r > 0) {
                r = settle_stratod(c, e);
                if (r < 0)
                        return r;
                if (r == 0)
                        return c->replace ? replace_stratod(c, e) : 0;
        }
        r = mount_prepare(c->mount, e);
        if (r < 0)
                return r;
        r = daemon_start(c, STRATOD, start_ms(c, STRATOD_MS), e);
        if (r < 0) {
                /* It may have died with the mount half made. */
                if (mount_probe(c->mount, PROBE_MS) == MOUNT_STALE)
                        mount_detach(c->mount, true, NULL);
                return r;
        }
        if (mount_probe(c->mount, PROBE_MS) != MOUNT_OK)
                return err_set(e, -EIO, "stratod says it serves, but '%s' does not answer",
                               c->mount);
        return 1;
}

static void print_up(const struct cloud *c, bool blockd, bool stratod)
{
        if (c->json) {
                json_t *j = json_pack("{s:b s:s s:s s:s s:{s:b s:b}}", "up", 1, "mount", c->mount,
                                      "state", c->state, "run", c->run, "started", "blockd", blockd,
                                      "stratod", stratod);

                json_dumpf(j, stdout, JSON_COMPACT);
                putchar('\n');
                json_decref(j);
                return;
        }
        if (c->replace && (blockd || stratod)) {
                printf("The cloud is up, with the programs as they are now.\n");
                return;
        }
        printf("%s\n", !blockd && !stratod ? "The cloud is up already."
                       : blockd && stratod ? "The cloud is up."
                       : stratod           ? "The cloud is up again: stratod was missing."
                                           : "The cloud is up again: blockd was missing.");
        printf("  mount  %s\n  state  %s\n  logs   %s/log\n", c->mount, c->state, c->state);
        if (blockd || stratod)
                printf("Next: cd %s/tenants/default; cat %s/help\n", c->mount, c->mount);
}

int verb_up(struct cloud *c, struct err **e)
{
        _cleanup_close_ int lock = -1;
        int blockd, stratod;
        pid_t pid;
        int r;

        r = places_make(c, e);
        if (r < 0)
                return r;
        lock = cloud_lock(c, e);
        if (lock < 0)
                return lock;
        if (c->replace && daemon_find(c, STRATOD, &pid) > 0 && daemon_alone(c, STRATOD)) {
                err_set(e, -EBUSY, "stratod's holder was killed: nobody would start the new one");
                return err_hint(e, -EBUSY, "strato down, then strato up");
        }
        blockd = up_blockd(c, e);
        if (blockd < 0)
                return blockd;
        stratod = up_stratod(c, e);
        if (stratod < 0) {
                if (blockd > 0 && !c->replace)
                        daemon_stop(c, BLOCKD, END_MS, true, NULL);
                return stratod;
        }
        r = places_remember(c, e);
        if (r < 0)
                return r;
        print_up(c, blockd, stratod);
        return STATUS_OK;
}

/* strato serve NAME: what a unit file runs.  blockd and stratod are two units; no lock is held
 * while they live, the daemon's own is enough. */
int verb_serve(struct cloud *c, struct err **e)
{
        enum daemon d;
        pid_t pid;
        int r;

        if (streq(c->words[0], "blockd"))
                d = BLOCKD;
        else if (streq(c->words[0], "stratod"))
                d = STRATOD;
        else
                return err_set(e, -EINVAL, "'%s' is no daemon of ours", c->words[0]);
        r = places_make(c, e);
        if (r < 0)
                return r;
        r = daemon_find(c, d, &pid);
        if (r != 0)
                return r < 0 ? err_errno(e, r, "look for %s", daemon_name(d))
                             : err_set(e, -EEXIST, "%s runs already, pid %d", daemon_name(d), pid);
        if (d == STRATOD) {
                /* a mount that systemd holds answers when we do */
                r = getenv("LISTEN_FDS") ? 0 : mount_prepare(c->mount, e);
                if (r == 0)
                        r = places_remember(c, e);
                if (r < 0)
                        return r;
        }
        return daemon_become(c, d, e);
}
