/* What can wait: a thread that flattens and sweeps. */
#include "backend/volume/rbd/rbd.h"

#include "common/log.h"

struct search {
        struct pool *p;
        char id[VOLUME_ID_SIZE];
};

/* One that failed waits until it is asked again. */
static int find_flatten(void *arg, const char *id, const struct record *r)
{
        struct search *s = arg;
        struct entry *en;

        if (!r->flatten || !r->made)
                return 0;
        WITH_LOCK(&s->p->lock);
        HASH_FIND_STR(s->p->entries, id, en);
        if (en && en->flatten_failed)
                return 0;
        strcpy(s->id, id);
        return 1;
}

static int on_progress(uint64_t done, uint64_t total, void *arg)
{
        struct entry *en = arg;

        en->flatten_done = done;
        en->flatten_total = total;
        return 0;
}

/* Independent from here on. */
static int settle(struct pool *p, const char *id)
{
        struct entry *en = entry_take(p, id);
        struct record rec;
        int r;

        if (!en)
                return -ENOMEM;
        r = index_get(p, id, &rec, NULL);
        if (r == 0) {
                rec.flatten = false;
                rec.parent[0] = '\0';
                r = index_put(p, id, &rec, false, NULL);
        }
        entry_release(en);
        return r;
}

static void flatten(struct pool *p, const char *id)
{
        struct entry *en;
        int r = volume_handle_open(p, id, &en, NULL);

        if (r < 0)
                return;
        en->flatten_done = 0;
        r = rbd_get_size(en->image, &(uint64_t){0});
        en->flattening = true;
        if (r == 0)
                r = rbd_flatten_with_progress(en->image, on_progress, en);
        if (r == -EINVAL) /* it has no parent any more */
                r = 0;
        if (r == 0)
                r = settle(p, id);
        en->flatten_failed = r;
        en->flattening = false;
        if (r < 0)
                log_error("flatten volume %s: %s", id, strerror(-r));
        volume_handle_close(en);
}

int work_piece(struct pool *p)
{
        struct search s = {.p = p};

        if (index_walk(p, "", find_flatten, &s, NULL) >= 0 && s.id[0]) {
                flatten(p, s.id);
                return 1;
        }
        return sweep(p);
}

void work_kick(struct pool *p)
{
        WITH_LOCK(&p->work_lock);
        p->wanted = true;
        pthread_cond_signal(&p->work_wake);
}

static void *work(void *arg)
{
        struct pool *p = arg;

        pthread_mutex_lock(&p->work_lock);
        while (!p->stop) {
                if (!p->wanted) {
                        pthread_cond_wait(&p->work_wake, &p->work_lock);
                        continue;
                }
                p->wanted = false;
                pthread_mutex_unlock(&p->work_lock);
                while (!p->stop && work_piece(p) > 0)
                        ;
                pthread_mutex_lock(&p->work_lock);
        }
        pthread_mutex_unlock(&p->work_lock);
        return NULL;
}

void work_background(struct pool *p, bool on)
{
        if (on && !p->working) {
                p->stop = false;
                p->wanted = true;
                p->working = pthread_create(&p->worker, NULL, work, p) == 0;
                if (!p->working)
                        log_error("no thread for what can wait in the Ceph pool");
        } else if (!on && p->working) {
                p->stop = true;
                work_kick(p);
                pthread_join(p->worker, NULL);
                p->working = false;
        }
}
