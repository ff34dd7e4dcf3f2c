/* Which devices guests were asked to let go of. */
#include "backend/compute/libvirt/driver.h"

#include "common/clock.h"

enum {
        /* A running guest answers within a second or overlooked the request (early in its boot). */
        ASK_AGAIN_US = 10 * 1000 * 1000,
        /* Nobody waits and no event came: the connection was down when it should have. */
        FORGET_US = 600 * 1000 * 1000,
};

static void drop(struct unplug **p)
{
        struct unplug *u = *p;

        *p = u->next;
        free(u->alias);
        free(u);
}

static void drop_old(struct driver *d)
{
        int64_t now = clock_mono();

        for (struct unplug **p = &d->unplugs; *p;)
                if ((*p)->waiters == 0 && now - (*p)->asked > FORGET_US)
                        drop(p);
                else
                        p = &(*p)->next;
}

struct unplug *unplug_get(struct driver *d, const char *uuid, const char *alias, const char *target)
{
        struct unplug *u;

        WITH_LOCK(&d->lock);
        drop_old(d);
        for (u = d->unplugs; u; u = u->next)
                if (streq(u->uuid, uuid) && streq(u->alias, alias) && !u->removed)
                        break;
        if (!u) {
                u = calloc(1, sizeof(*u));
                if (!u)
                        return NULL;
                u->alias = strdup(alias);
                if (!u->alias) {
                        free(u);
                        return NULL;
                }
                snprintf(u->uuid, sizeof(u->uuid), "%s", uuid);
                snprintf(u->target, sizeof(u->target), "%s", target);
                u->next = d->unplugs;
                d->unplugs = u;
        }
        u->refused = false;
        u->waiters++;
        return u;
}

void unplug_put(struct driver *d, struct unplug *u, bool gone)
{
        WITH_LOCK(&d->lock);
        u->removed |= gone;
        if (--u->waiters > 0 || (!u->removed && u->asked))
                return;
        for (struct unplug **p = &d->unplugs; *p; p = &(*p)->next)
                if (*p == u) {
                        drop(p);
                        break;
                }
}

bool unplug_due(struct driver *d, struct unplug *u)
{
        int64_t now = clock_mono();

        WITH_LOCK(&d->lock);
        if (u->asked && now - u->asked < ASK_AGAIN_US)
                return false;
        u->asked = now;
        return true;
}

void unplug_not_asked(struct driver *d, struct unplug *u)
{
        WITH_LOCK(&d->lock);
        u->asked = 0;
}

enum unplug_answer unplug_wait(struct driver *d, struct unplug *u, int64_t deadline)
{
        WITH_LOCK(&d->lock);
        while (!u->removed && !u->refused && !d->lost && !d->closing) {
                int64_t until = MIN(deadline, u->asked + ASK_AGAIN_US);
                struct timespec ts = clock_timespec(until);

                if (clock_mono() >= until)
                        break;
                pthread_cond_timedwait(&d->cond, &d->lock, &ts);
        }
        return u->removed ? UNPLUG_REMOVED : u->refused ? UNPLUG_REFUSED : UNPLUG_NONE;
}

void unplug_removed(struct driver *d, const char *uuid, const char *alias)
{
        char late[sizeof(d->unplugs->target)] = "";
        struct unplug **p, *u;

        pthread_mutex_lock(&d->lock);
        for (p = &d->unplugs; (u = *p);) {
                if (streq(u->uuid, uuid) && (!alias || streq(u->alias, alias))) {
                        u->removed = true;
                        if (u->waiters == 0) {
                                memcpy(late, u->target, sizeof(late));
                                drop(p);
                                continue;
                        }
                }
                p = &u->next;
        }
        pthread_cond_broadcast(&d->cond);
        pthread_mutex_unlock(&d->lock);
        if (alias && *late && d->ev.left)
                d->ev.left(d->ev.arg, uuid, late);
}

void unplug_refused(struct driver *d, const char *uuid, const char *alias)
{
        WITH_LOCK(&d->lock);
        for (struct unplug *u = d->unplugs; u; u = u->next)
                if (streq(u->uuid, uuid) && streq(u->alias, alias)) {
                        u->refused = true;
                        u->asked = 0;
                }
        pthread_cond_broadcast(&d->cond);
}

void unplug_resumed(struct driver *d, const char *uuid)
{
        WITH_LOCK(&d->lock);
        for (struct unplug *u = d->unplugs; u; u = u->next)
                if (u->asked && streq(u->uuid, uuid))
                        u->asked = clock_mono();
}

void unplug_forget_all(struct driver *d)
{
        while (d->unplugs)
                drop(&d->unplugs);
}
