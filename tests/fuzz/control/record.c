/* Records that a store gives back, as a control plane starts with them.
 *
 * An input is lines, "SCOPE KEY VERSION VALUE"; what is left of it after a start and a stop is
 * loaded once more, and has to be what it was. */
#include "../../control/rig-fakes.h"

#include <inttypes.h>

#include "common/buf.h"
#include "common/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

enum { RECORDS_MAX = 64, SHOWN_MAX = 256 };

static struct {
        pthread_mutex_t lock;
        pthread_cond_t cond;
        unsigned due;
} commits = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

static void committed(void *arg, enum store_result result, const struct err *err)
{
        WITH_LOCK(&commits.lock);
        commits.due--;
        pthread_cond_signal(&commits.cond);
}

/* A key that is there already is a conflict, and stays as it is. */
static void put(struct store *s, char *line)
{
        char *rest = line, *scope = strsep(&rest, " "), *key = strsep(&rest, " "),
             *version = strsep(&rest, " ");
        uint64_t v = version ? strtoull(version, NULL, 10) : 0;
        struct store_txn *t;

        if (!rest || v == 0 || strlen(scope) >= sizeof(t->scope))
                return;
        t = store_txn_new(scope);
        if (!t || store_txn_add(t, key, 0, v, rest) < 0)
                abort();
        t->done = committed;
        WITH_LOCK(&commits.lock);
        commits.due++;
        s->ops->commit(s, t);
}

static void fill(struct store *s, const uint8_t *p, size_t n)
{
        for (unsigned i = 0; n > 0 && i < RECORDS_MAX; i++) {
                const uint8_t *nl = memchr(p, '\n', n);
                size_t k = nl ? (size_t)(nl - p) : n;
                _cleanup_free_ char *line = strndup((const char *)p, k);

                put(s, line);
                k += nl != NULL;
                p += k;
                n -= k;
        }
        WITH_LOCK(&commits.lock);
        while (commits.due)
                pthread_cond_wait(&commits.cond, &commits.lock);
}

/* Whatever it is can be shown. */
static void show(struct control *c)
{
        struct buf out = {};
        struct object *o;
        unsigned i = 0;

        control_rdlock(c);
        for (o = c->by_no; o && i < SHOWN_MAX; o = o->hh_no.next, i++) {
                render_ctl(c, o, &out);
                render_spec(c, o, &out);
                render_json(c, o, &out);
                render_error(c, o, &out);
                render_path(c, o, &out);
                for (unsigned k = 0; k < o->kind->nattrs; k++)
                        render_attr(c, o, k, &out);
                buf_done(&out);
        }
        control_unlock(c);
}

/* true: there was a cloud in it. */
static bool live(struct store *s)
{
        struct control_config cfg = {.store = s,
                                     .volumes = &fake.volumes,
                                     .images = &fake.images,
                                     .compute = open_fake_compute,
                                     .network = rig_network,
                                     .mount = "/cloud",
                                     .state = "/nonexistent",
                                     .run = "/nonexistent",
                                     .host = "here",
                                     .uid = 1000,
                                     .gid = 1000};
        _cleanup_err_ struct err *e = NULL;
        struct control *c;

        if (control_start(&cfg, &c, &e) < 0) {
                if (!e || !*err_msg(e))
                        abort(); /* refused without a word */
                return false;
        }
        show(c);
        control_stop(c);
        return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
        struct store *s = store_memory_new();

        log_set_level(LOG_EMERG);
        rig_drivers();
        fill(s, p, n);
        if (live(s) && !live(s))
                abort(); /* what it wrote itself it does not take back */
        s->ops->close(s);
        return 0;
}
