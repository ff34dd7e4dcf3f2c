/* strato tour: two minutes with a running cloud, typed before one's eyes.  What it makes is called
 * `tour` and goes at the end, also after Ctrl-C or a failure. */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "cli/cli.h"
#include "cli/tree.h"
#include "common/fileio.h"
#include "common/macro.h"

struct step {
        const char *words;
        const char *command; /* for bash, in the tenant's folder */
        bool refused;        /* it is meant to fail */
};

static const struct step steps[] = {
        {"A tenant is a folder: what it has are collections, and `quota`, `usage`, `events`.",
         "ls"},
        {"Each collection says what its objects have. All of it is text.",
         "head -n 12 volumes/help"},
        {"A volume is a folder. It is a draft ...", "mkdir volumes/tour; cat volumes/tour/state"},
        {"... until it has a size. Writing a file is the call: when echo returns, it is on disk.",
         "echo 64M > volumes/tour/size; cat volumes/tour/.wait/available@30"},
        {"A mistake fails in the write, as everywhere in Unix.", "echo 64MB > volumes/tour/size",
         true},
        {"What was wrong is beside it, in words.", "cat volumes/tour/error"},
        {"Its bytes are a file: dd, cp and qemu-img work.",
         "echo hello | dd of=volumes/tour/data conv=notrunc,fsync status=none; "
         "head -c 6 volumes/tour/data"},
        {"A snapshot is a folder, too ...", "mkdir volumes/tour/snapshots/before"},
        {"... and a clone is a link to what it is made from. It is there at once.",
         "cat volumes/tour/snapshots/before/.wait/available@30 && mkdir volumes/tour-clone && "
         "ln -s ../tour/snapshots/before volumes/tour-clone/source && "
         "cat volumes/tour-clone/.wait/available@30 && head -c 6 volumes/tour-clone/data"},
        {"Your own words about an object are files in metadata/.",
         "echo 'to be thrown away' > volumes/tour/metadata/purpose; cat volumes/tour/metadata/*"},
        {"A guest: a flavor, and disks by links. `echo start > ctl` would boot it.",
         "mkdir instances/tour; echo \"$(basename \"$(ls -d ../../flavors/*/ | head -n 1)\")\" > "
         "instances/tour/flavor; ln -s volumes/tour instances/tour/volumes/vda; "
         "cat instances/tour/ctl"},
        {"A network is a link, too: its address is known before the guest starts.",
         "test ! -d networks/default || { ln -s networks/default instances/tour/networks/; "
         "cat instances/tour/addresses; }"},
        {"What is in use does not go, and says who uses it.", "rmdir volumes/tour", true},
        {"All of it as one document; `strato apply` takes files of these.",
         "cat instances/tour/spec"},
        {"And what happened.", "tail -n 8 events"},
};

/* Users before what they use. */
static const char *const made[] = {"instances/tour", "volumes/tour-clone",
                                   "volumes/tour/snapshots/before", "volumes/tour"};

static volatile sig_atomic_t stopped;

static void stop(int sig)
{
        stopped = 1;
}

/* Enter goes on; what is no terminal does not wait. */
static void pause_for_enter(void)
{
        struct pollfd in = {.fd = 0, .events = POLLIN};
        sigset_t block, before;
        char line[64];

        if (!isatty(0) || stopped)
                return;
        printf("\n[Enter goes on, Ctrl-C ends] ");
        fflush(stdout);
        /* A signal that comes just before the wait must end it, too. */
        sigemptyset(&block);
        sigaddset(&block, SIGINT);
        sigprocmask(SIG_BLOCK, &block, &before);
        if (!stopped && (ppoll(&in, 1, NULL, &before) < 0 || read(0, line, sizeof(line)) <= 0))
                stopped = 1;
        sigprocmask(SIG_SETMASK, &before, NULL);
}

static int run_step(const struct step *s)
{
        int status;

        printf("\n%s\n\n    $ %s\n", s->words, s->command);
        fflush(stdout);
        /* bash, as its echo says why a write failed. */
        setenv("TOUR_STEP", s->command, true);
        status = system("exec bash -c \"$TOUR_STEP\"");
        if (status < 0 || (WIFSIGNALED(status) && !stopped))
                stopped = 1;
        return stopped || (status == 0) != s->refused ? 0 : -EIO;
}

static int clean_up(const char *tenant, struct err **e)
{
        int r = 0;

        printf("\nWhat the tour made goes again: rmdir.\n");
        for (size_t i = 0; i < ARRAY_SIZE(made); i++) {
                _cleanup_free_ char *path = path_printf("%s/%s", tenant, made[i]);
                struct stat st;

                if (!path)
                        return -ENOMEM;
                if (lstat(path, &st) < 0)
                        continue;
                if (rmdir(path) < 0 && r == 0)
                        r = err_errno(e, -errno, "rmdir %s", path);
        }
        return r;
}

static int look_first(const char *tenant, struct err **e)
{
        for (size_t i = 0; i < ARRAY_SIZE(made); i++) {
                _cleanup_free_ char *path = path_printf("%s/%s", tenant, made[i]);
                struct stat st;

                if (path && lstat(path, &st) == 0)
                        return err_set(e, -EEXIST,
                                       "'%s' is there: the tour would make and remove it", path);
        }
        return 0;
}

int verb_tour(struct cloud *c, struct err **e)
{
        _cleanup_free_ char *up = path_printf("%s/version", c->mount), *tenant = NULL;
        struct sigaction on_int = {.sa_handler = stop};
        int r, cleaned;

        if (!up || access(up, R_OK) < 0)
                return err_set(e, -ENOTCONN, "no cloud answers at %s: strato up", c->mount);
        tenant = path_printf("%s/tenants/%s", c->mount, c->nwords ? c->words[0] : "default");
        if (!tenant)
                return -ENOMEM;
        if (chdir(tenant) < 0)
                return err_errno(e, -errno, "'%s'", tenant);
        r = look_first(tenant, e);
        if (r < 0)
                return r;
        sigaction(SIGINT, &on_int, NULL);
        printf("This is %s. Whatever is typed here you can type yourself.\n", tenant);
        for (size_t i = 0; r == 0 && !stopped && i < ARRAY_SIZE(steps); i++) {
                r = run_step(&steps[i]);
                if (r < 0)
                        err_set(e, r, "this step did not go as it should: %s", steps[i].command);
                else
                        pause_for_enter();
        }
        cleaned = clean_up(tenant, r < 0 ? NULL : e);
        if (r == 0)
                r = cleaned;
        if (r == 0)
                printf("More: stratofs(5), strato(1), and `cat help` where you are.\n");
        return r < 0 ? r : STATUS_OK;
}
