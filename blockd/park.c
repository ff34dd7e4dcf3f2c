/* Connections that come to rest for a replacement: see handover.h. */
#include <sys/ioctl.h>
#include <linux/sockios.h>
#include <utlist.h>

#include "blockd/handover.h"
#include "blockd/meter.h"
#include "blockd/server.h"
#include "common/clock.h"

enum {
        READER_MS = 1000,    /* a client that reads nothing of its replies, or negotiates without a
                              * pause (a handshake of TLS), for so long is closed */
        SLOW_MS = 5000,      /* and one that reads some, but not all */
        PATIENCE_MS = 30000, /* one volume's requests take so long: not now */
        KICK_USEC = 1000,
};

/* Wait for `gone` or a moment. */
static void wait_a_moment(struct server *s)
{
        const struct timespec until = clock_timespec(clock_now() + KICK_USEC);

        pthread_cond_timedwait(&s->gone, &s->lock, &until);
}

/* Whether its client holds up what it asks for: parking it has taken so long already. */
static bool hinders(struct conn *c, int64_t ms)
{
        const int64_t now = clock_mono();
        const uint64_t sent = wire_sent(&c->wire);
        struct unread *u = &c->unread;
        int n = 0;

        if (!c->meter) /* or it was handed over itself, and its volume is being opened */
                return ms > READER_MS && !c->resume[0];
        if (ioctl(c->wire.fd, SIOCOUTQ, &n) < 0 || n == 0) {
                u->since = 0;
                return false;
        }
        if (u->since == 0 || u->bytes != n || u->sent != sent)
                *u = (struct unread){.sent = sent, .bytes = n, .since = now};
        return now - u->since > READER_MS * INT64_C(1000) || ms > SLOW_MS;
}

int park(struct server *s, const char *volume, struct err **e)
{
        const int64_t began = clock_mono();

        WITH_LOCK(&s->lock);
        for (;;) {
                const int64_t ms = (clock_mono() - began) / 1000;
                unsigned busy = 0;
                struct conn *c;

                DL_FOREACH (s->conns, c) {
                        if (c->parked || (volume && c->meter && !streq(c->meter->volume, volume)))
                                continue;
                        conn_park(c);
                        if (!c->parked)
                                busy++;
                        if (!c->parked && hinders(c, ms))
                                conn_disconnect(c);
                }
                if (busy == 0)
                        return 0;
                if (ms > PATIENCE_MS)
                        return err_set(e, -ETIMEDOUT, "%u connections do not come to rest", busy);
                wait_a_moment(s);
        }
}

void park_end(struct server *s)
{
        struct conn *c;

        WITH_LOCK(&s->lock);
        DL_FOREACH (s->conns, c) {
                c->park = false;
                c->unread.since = 0;
                if (c->parked)
                        conn_revive(c);
        }
}
