/* strato migrate-store: stratod does it, with the cloud down. */
#include <fcntl.h>

#include "cli/cli.h"
#include "cli/daemon.h"
#include "cli/lock.h"
#include "cli/places.h"

int verb_migrate_store(struct cloud *c, struct err **e)
{
        _cleanup_close_ int lock = -1;
        _cleanup_free_ char *program = NULL;
        pid_t pid;
        int r;

        if (!c->conf)
                return err_set(e, -EINVAL, "--conf FILE says where to");
        lock = cloud_lock(c, e);
        if (lock < 0)
                return lock;
        r = daemon_find(c, STRATOD, &pid);
        if (r < 0)
                return err_errno(e, r, "look for stratod");
        if (r > 0) {
                err_set(e, -EBUSY, "the cloud is up: stratod runs, pid %d", pid);
                return err_hint(e, -EBUSY, "strato down; its guests go on");
        }
        r = program_path("stratod", &program, e);
        if (r < 0)
                return r;
        /* The lock goes along: it is held until stratod has ended. */
        fcntl(lock, F_SETFD, 0);
        execl(program, "stratod", "--migrate-store", "--state", c->state, "--conf", c->conf, NULL);
        return err_errno(e, -errno, "run '%s'", program);
}
