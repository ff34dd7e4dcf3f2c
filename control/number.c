/* Numbers of objects, where several hosts make them: taken from the store in blocks, the next block
 * before this one is used up, so that who makes an object does not wait. */
#include "control/internal.h"

enum { BLOCK = 1000 };

struct numbers {
        uint64_t next, end; /* at hand; model write-held */
        pthread_mutex_t lock;
        pthread_cond_t cond;
        uint64_t spare; /* the first of BLOCK more, 0: none yet */
        bool running, stop;
        pthread_t thread;
};

static void *numbers_main(void *arg)
{
        struct control *c = arg;
        struct numbers *f = c->numbers;
        struct store *s = c->cfg.store;

        pthread_mutex_lock(&f->lock);
        while (!f->stop) {
                struct timespec ts = clock_timespec(clock_mono() + 1000000);
                uint64_t first = 0;

                if (f->spare) {
                        pthread_cond_wait(&f->cond, &f->lock);
                        continue;
                }
                pthread_mutex_unlock(&f->lock);
                if (s->ops->numbers(s, 1, BLOCK, &first, NULL) < 0)
                        first = 0;
                pthread_mutex_lock(&f->lock);
                f->spare = first;
                pthread_cond_broadcast(&f->cond);
                if (!first && !f->stop)
                        pthread_cond_timedwait(&f->cond, &f->lock, &ts);
        }
        pthread_mutex_unlock(&f->lock);
        return NULL;
}

uint64_t number_next(struct control *c)
{
        struct numbers *f = c->numbers;

        if (!f)
                return c->next_no++;
        if (f->next == f->end) {
                WITH_LOCK(&f->lock);

                while (!f->spare) /* a thousand creations, and none of them committed: never */
                        pthread_cond_wait(&f->cond, &f->lock);
                f->next = f->spare;
                f->end = f->next + BLOCK;
                f->spare = 0;
                pthread_cond_broadcast(&f->cond);
        }
        return f->next++;
}

void number_back(struct control *c, uint64_t no)
{
        if (no != OBJECT_CLOUD && c->numbers && c->numbers->next == no + 1)
                c->numbers->next--;
}

int numbers_start(struct control *c, struct err **e)
{
        struct store *s = c->cfg.store;
        struct numbers *f;
        pthread_condattr_t a;
        int r;

        if (!s->ops->numbers)
                return 0;
        f = xcalloc(1, sizeof(*f));
        pthread_mutex_init(&f->lock, NULL);
        pthread_condattr_init(&a);
        pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
        pthread_cond_init(&f->cond, &a);
        pthread_condattr_destroy(&a);
        c->numbers = f;
        r = s->ops->numbers(s, c->next_no, BLOCK, &f->next, e);
        if (r < 0)
                return r;
        f->end = f->next + BLOCK;
        f->running = pthread_create(&f->thread, NULL, numbers_main, c) == 0;
        return f->running ? 0 : err_set(e, -EAGAIN, "no thread for numbers");
}

void numbers_stop(struct control *c)
{
        struct numbers *f = c->numbers;

        if (!f)
                return;
        pthread_mutex_lock(&f->lock);
        f->stop = true;
        pthread_cond_broadcast(&f->cond);
        pthread_mutex_unlock(&f->lock);
        if (f->running)
                pthread_join(f->thread, NULL);
        f->running = false;
}

void numbers_free(struct control *c)
{
        struct numbers *f = c->numbers;

        if (!f)
                return;
        numbers_stop(c);
        pthread_cond_destroy(&f->cond);
        pthread_mutex_destroy(&f->lock);
        free(f);
        c->numbers = NULL;
}
