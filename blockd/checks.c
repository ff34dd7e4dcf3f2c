/* Checks of volumes, in the background: one thread each, few at a time, at low priority. */
#include <jansson.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "blockd/server.h"
#include "common/log.h"

enum {
        RUNNING_MAX = 2, /* at once */
        KEPT = 256,      /* reports of ended ones */
        NICE = 10,
        IOPRIO_LOWEST = 2 << 13 | 7, /* best effort, the last; see ioprio_set(2) */
        WHO_THREAD = 1,
};
#define RATE (UINT64_C(64) << 20) /* bytes a second */

struct checkup {
        UT_hash_handle hh; /* by volume */
        char volume[VOLUME_ID_SIZE];
        char token[EXPORT_ID_SIZE];
        struct server *server;
        struct volume_check how;
        bool running;
        atomic_bool cancel;
        /* Guarded by the server's lock. */
        uint64_t done, total;
        json_t *findings;
        unsigned found, repaired;
        int result;
        char *words; /* of a result < 0 */
};

static struct checkup *find(struct server *s, const char *volume)
{
        struct checkup *k;

        HASH_FIND_STR(s->checks, volume, k);
        return k;
}

static void drop(struct server *s, struct checkup *k)
{
        HASH_DEL(s->checks, k);
        json_decref(k->findings);
        free(k->words);
        free(k);
}

static int progress(void *arg, uint64_t done, uint64_t total)
{
        struct checkup *k = arg;

        WITH_LOCK(&k->server->lock);
        k->done = done;
        k->total = total;
        return k->cancel;
}

static void finding(void *arg, bool repaired, const char *line)
{
        struct checkup *k = arg;

        log_warning("check of volume %s: %s", k->volume, line);
        WITH_LOCK(&k->server->lock);
        k->found++;
        k->repaired += repaired;
        if (json_array_size(k->findings) < VOLUME_FINDINGS)
                json_array_append_new(k->findings, json_string(line));
}

static int examine(struct checkup *k, struct err **e)
{
        struct volume *v = NULL;
        int r = volume_open(k->server->pool, k->volume, true, &v, e);

        if (r == -EUCLEAN) { /* that is what was asked */
                _cleanup_free_ char *line = NULL;

                if (asprintf(&line, "%s: its bytes cannot be told: not repaired", err_msg(*e)) > 0)
                        finding(k, false, line);
                *e = err_free(*e);
                return line ? 0 : -ENOMEM;
        }
        if (r == 0)
                r = volume_check(v, &k->how, e);
        volume_close(v);
        return r;
}

static void *check_thread(void *arg)
{
        struct checkup *k = arg;
        struct server *s = k->server;
        _cleanup_err_ struct err *e = NULL;
        int r;

        if (setpriority(PRIO_PROCESS, gettid(), NICE) < 0 ||
            syscall(SYS_ioprio_set, WHO_THREAD, 0, IOPRIO_LOWEST) < 0)
                log_debug("a check runs at the priority of the others: %m");
        r = examine(k, &e);
        WITH_LOCK(&s->lock);
        k->result = r;
        k->words = r < 0 ? strdup(e ? err_msg(e) : strerror(-r)) : NULL;
        k->running = false;
        pthread_cond_broadcast(&s->gone);
        return NULL;
}

/* Makes room for one more; false: too many run. */
static bool room(struct server *s)
{
        struct checkup *k, *tmp, *ended = NULL;
        unsigned running = 0;

        HASH_ITER (hh, s->checks, k, tmp) {
                running += k->running;
                if (!ended && !k->running)
                        ended = k; /* the oldest: the table keeps their order */
        }
        if (HASH_COUNT(s->checks) >= KEPT && ended)
                drop(s, ended);
        return running < RUNNING_MAX;
}

int check_start(struct server *s, const char *volume, const char *token,
                const struct volume_check *how, struct err **e)
{
        struct checkup *k;

        if (strlen(volume) >= sizeof(k->volume) || strlen(token) >= sizeof(k->token))
                return err_set(e, -EINVAL, "request: an id is too long");
        WITH_LOCK(&s->lock);
        k = find(s, volume);
        if (k && streq(k->token, token) && token[0])
                return 0; /* that one */
        if (k && k->running)
                return err_set(e, -EBUSY, "volume '%s' is being checked", volume);
        if (k)
                drop(s, k);
        if (!room(s))
                return err_set(e, -EBUSY, "%d volumes are being checked", RUNNING_MAX);
        k = calloc(1, sizeof(*k));
        if (!k)
                return err_errno(e, -ENOMEM, "check");
        strcpy(k->volume, volume);
        strcpy(k->token, token);
        k->server = s;
        k->how = *how;
        if (k->how.rate == 0)
                k->how.rate = how->scrub ? RATE : 0;
        k->how.progress = progress;
        k->how.finding = finding;
        k->how.arg = k;
        k->findings = json_array();
        k->running = true;
        HASH_ADD_STR(s->checks, volume, k);
        if (server_thread(check_thread, k) == 0)
                return 0;
        drop(s, k);
        return err_set(e, -EAGAIN, "no thread for a check");
}

void check_cancel(struct server *s, const char *volume)
{
        struct checkup *k, *tmp;

        WITH_LOCK(&s->lock);
        HASH_ITER (hh, s->checks, k, tmp) {
                if (volume && !streq(k->volume, volume))
                        continue;
                k->cancel = true;
        }
        for (;;) {
                bool running = false;

                HASH_ITER (hh, s->checks, k, tmp)
                        running |= k->running && (!volume || streq(k->volume, volume));
                if (!running)
                        return;
                pthread_cond_wait(&s->gone, &s->lock);
        }
}

void check_show(struct server *s, const char *volume, json_t *answer)
{
        struct checkup *k;

        WITH_LOCK(&s->lock);
        k = find(s, volume);
        if (!k) {
                json_object_set_new(answer, "state", json_string("none"));
                return;
        }
        json_object_set_new(answer, "state",
                            json_string(k->running                ? "running"
                                        : k->result == -ECANCELED ? "cancelled"
                                        : k->result < 0           ? "failed"
                                                                  : "done"));
        json_object_set_new(answer, "token", json_string(k->token));
        json_object_set_new(answer, "scrub", json_boolean(k->how.scrub));
        json_object_set_new(answer, "done", json_integer((json_int_t)k->done));
        json_object_set_new(answer, "total", json_integer((json_int_t)k->total));
        json_object_set_new(answer, "found", json_integer(k->found));
        json_object_set_new(answer, "repaired", json_integer(k->repaired));
        json_object_set_new(answer, "findings", json_copy(k->findings));
        if (k->words)
                json_object_set_new(answer, "words", json_string(k->words));
}

void checks_free(struct server *s)
{
        struct checkup *k, *tmp;

        HASH_ITER (hh, s->checks, k, tmp)
                drop(s, k);
}
