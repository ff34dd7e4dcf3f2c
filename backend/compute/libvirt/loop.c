/* The thread that runs libvirt's event loop.  The loop is libvirt's own, one a process, and so is
 * what is here. */
#include "backend/compute/libvirt/driver.h"

static struct {
        pthread_mutex_t lock; /* the rest, and the beginning and the end */
        unsigned users;
        pthread_t thread;
        int timer; /* never fires by itself; wakes the loop to end it */
        _Atomic bool quit;
} loop = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void on_timer(int timer, void *arg)
{
        /* It only had to wake the loop. */
        virEventUpdateTimeout(timer, -1);
}

static void *loop_run(void *arg)
{
        while (!loop.quit)
                if (virEventRunDefaultImpl() < 0)
                        virResetLastError();
        return NULL;
}

static int loop_start(struct err **e)
{
        int r;

        loop.quit = false;
        loop.timer = virEventAddTimeout(-1, on_timer, NULL, NULL);
        if (loop.timer < 0)
                return virt_error(NULL, e);
        r = -pthread_create(&loop.thread, NULL, loop_run, NULL);
        if (r == 0)
                return 0;
        virEventRemoveTimeout(loop.timer);
        return err_errno(e, r, "start libvirt's event loop");
}

int loop_hold(struct err **e)
{
        int r;

        WITH_LOCK(&loop.lock);
        r = loop.users == 0 ? loop_start(e) : 0;
        loop.users += r == 0;
        return r;
}

void loop_drop(void)
{
        WITH_LOCK(&loop.lock);
        if (--loop.users > 0)
                return;
        loop.quit = true;
        virEventUpdateTimeout(loop.timer, 0);
        pthread_join(loop.thread, NULL);
        virEventRemoveTimeout(loop.timer);
}
