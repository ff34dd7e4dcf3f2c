/* Feeds bytes to an NBD session over the null driver, in pieces as a socket might bring them.
 * First byte: size of the pieces (bits 0-1), whether the export is read-only (bit 2), whether the
 * session rests between the pieces (bit 3). */
#include "blockd/session.h"
#include "fuzz.h"

enum { SENT_MAX = 16 << 20 }; /* a client that reads no more: what is longer is only slow */

struct fuzz {
        struct volume_pool *pool;
        bool readonly;
        uint64_t sent;
        struct limit limit;
        struct stats stats;
};

static const char id[] = "00000000-0000-4000-8000-000000000001";

static int fuzz_open(void *arg, const char *name, struct session_export *ret, struct err **e)
{
        struct fuzz *f = arg;

        if (name[0] && !streq(name, id))
                return err_set(e, -ENOENT, "no such export");
        strcpy(ret->name, id);
        return volume_open(f->pool, id, f->readonly, &ret->volume, e);
}

static int fuzz_list(void *arg _unused_, int (*each)(void *session, const char *name),
                     void *session)
{
        return each(session, id);
}

static int fuzz_changes(void *arg _unused_, struct volume *v, const char *since,
                        struct volume_changes **ret)
{
        return volume_changes_open(v, since, ret, NULL);
}

static int fuzz_snapshots(void *arg _unused_, struct volume *v _unused_,
                          int (*each)(void *query, const char *since), void *query)
{
        return each(query, "00000000-0000-4000-8000-000000000002");
}

static int fuzz_send(void *arg, struct iovec *iov, int n)
{
        struct fuzz *f = arg;
        uint8_t sum = 0;

        for (int i = 0; i < n; i++) {
                const uint8_t *p = iov[i].iov_base;
                size_t len = iov[i].iov_len;

                for (size_t k = 0; k < len; k += 16) /* all of it must be there to be read */
                        sum ^= p[k];
                sum ^= len > 0 ? p[len - 1] : 0;
                f->sent += iov[i].iov_len;
        }
        f->sent += sum & 0;
        return f->sent > SENT_MAX ? -EPIPE : 0;
}

static int fuzz_send_file(void *arg, int fd, uint64_t off _unused_, uint64_t n)
{
        struct fuzz *f = arg;

        if (fd < 0 || n == 0)
                abort();
        f->sent += n;
        return f->sent > SENT_MAX ? -EPIPE : 0;
}

static int fuzz_begin(void *arg, const char *volume _unused_, struct limit **ret,
                      struct stats **ret_stats)
{
        struct fuzz *f = arg;

        *ret = &f->limit;
        *ret_stats = &f->stats;
        return 0;
}

/* What was counted adds up, whatever was asked for. */
static void check_stats(const struct stats *s)
{
        uint64_t flying = 0;

        for (unsigned i = 0; i < STATS_OPS; i++) {
                const struct stats_count *c = &s->sum.op[i];
                uint64_t timed = 0;

                for (unsigned k = 0; k < STATS_BUCKETS; k++)
                        timed += c->latency[k];
                flying += s->batch[i].ops;
                if (timed != c->ops || c->errors > c->ops + s->batch[i].ops ||
                    c->bytes + s->batch[i].bytes > UINT64_C(1) << 62)
                        abort();
        }
        if (flying != s->sum.in_flight)
                abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
        static const size_t pieces[] = {1, 13, 4096, SESSION_IN};
        struct fuzz f = {};
        const struct session_owner owner = {.open = fuzz_open,
                                            .list = fuzz_list,
                                            .changes = fuzz_changes,
                                            .snapshots = fuzz_snapshots,
                                            .begin = fuzz_begin,
                                            .send = fuzz_send,
                                            .send_file = fuzz_send_file,
                                            .arg = &f};
        bool rests;
        struct session s;
        uint8_t *in;
        size_t have = 0, piece;

        if (n < 1 || volume_pool_open(&volume_driver_null, NULL, &f.pool, NULL) < 0)
                return 0;
        piece = pieces[*p & 3];
        f.readonly = *p & 4;
        rests = *p & 8;
        p++;
        n--;
        in = malloc(SESSION_IN);
        limit_init(&f.limit);
        limit_set(&f.limit, &(struct limit_config){.iops = LIMIT_IOPS_MAX});
        if (in && session_init(&s, &owner) == 0) {
                while (n > 0) {
                        size_t k = MIN(MIN(n, piece), SESSION_IN - have);
                        ssize_t r;

                        if (k == 0)
                                abort(); /* a session that takes nothing from a full buffer hangs */
                        memcpy(in + have, p, k);
                        p += k;
                        n -= k;
                        have += k;
                        r = session_input(&s, in, have);
                        if (r < 0)
                                break;
                        have -= r;
                        memmove(in, in + r, have);
                        if (rests && s.phase == SESSION_TRANSMISSION) {
                                session_rest(&s);
                                if (session_send(&s) < 0)
                                        break;
                        }
                }
                session_done(&s);
                check_stats(&f.stats);
        }
        limit_done(&f.limit);
        free(in);
        volume_pool_close(f.pool);
        return 0;
}
