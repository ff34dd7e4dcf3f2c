/* Every request passes here: the volume's limits, and its counters. */
#include "blockd/flight.h"
#include "common/clock.h"

static const struct {
        bool known, limited, bytes;
        enum stats_op op;
} sorts[] = {
        [NBD_CMD_READ] = {true, true, true, STATS_READ},
        [NBD_CMD_WRITE] = {true, true, true, STATS_WRITE},
        [NBD_CMD_FLUSH] = {true, false, false, STATS_FLUSH},
        [NBD_CMD_TRIM] = {true, true, false, STATS_TRIM},
        [NBD_CMD_CACHE] = {true, true, true, STATS_CACHE},
        [NBD_CMD_WRITE_ZEROES] = {true, true, false, STATS_ZERO},
        [NBD_CMD_BLOCK_STATUS] = {true, false, false, STATS_STATUS},
};

static bool known(unsigned type)
{
        return type < ARRAY_SIZE(sorts) && sorts[type].known;
}

/* What is counted as moved, of a length that may be refused. */
static uint64_t bytes_of(unsigned type, uint64_t len)
{
        if (type == NBD_CMD_FLUSH || type == NBD_CMD_BLOCK_STATUS)
                return 0;
        return MIN(len, type == NBD_CMD_READ || type == NBD_CMD_WRITE ? (uint64_t)VOLUME_IO_MAX
                                                                      : VOLUME_SIZE_MAX);
}

/* For the limits trimming and zeroing move nothing, and nobody pays for more than there is. */
static uint64_t limited_bytes(const struct session *s, unsigned type, uint64_t bytes)
{
        if (type == NBD_CMD_CACHE)
                return MIN(bytes, volume_size(s->volume));
        return sorts[type].bytes ? bytes : 0;
}

/* What is before it does not wait with it. */
static int answer_all(struct session *s)
{
        int r;

        batch_run(s);
        r = session_send(s);
        if (r == 0 && s->flights)
                r = flights_settle(s->flights);
        if (s->stats)
                stats_end(s->stats);
        return r;
}

static bool give_up(void *session)
{
        return session_to_pause(session) || session_gone(session);
}

/* -EAGAIN: it was to pause meanwhile, and the request is not taken. */
static int wait_turn(struct session *s, unsigned type, uint64_t bytes, uint64_t moved)
{
        int r = limit_take(s->limit, 1, moved, give_up, s);

        if (r == 0 || session_gone(s))
                return r;
        if (s->stats)
                stats_cancel(s->stats, sorts[type].op, bytes);
        s->paused = true;
        return -EAGAIN;
}

int request_admit(struct session *s, const struct request *q, bool alone)
{
        uint64_t bytes, moved;
        bool wait;
        int r = 0;

        if (!known(q->type))
                return 0;
        bytes = bytes_of(q->type, q->len);
        moved = limited_bytes(s, q->type, bytes);
        wait = s->limit && sorts[q->type].limited && !limit_try(s->limit, 1, moved);
        if (wait || alone)
                r = answer_all(s);
        if (s->stats)
                stats_start(s->stats, sorts[q->type].op, bytes);
        if (r == 0 && wait)
                r = wait_turn(s, q->type, bytes, moved);
        return r;
}

void request_resume(struct session *s)
{
        const unsigned type = s->write.type;

        if (s->stats && s->write.left > 0 && known(type))
                stats_start(s->stats, sorts[type].op,
                            bytes_of(type, s->write.off - s->write.start + s->write.left));
}

void request_failed(struct session *s, unsigned type, uint64_t len)
{
        if (s->stats && known(type))
                stats_failed(s->stats, sorts[type].op, bytes_of(type, len));
}

int64_t request_flies(struct session *s, const struct request *q)
{
        if (!s->stats || !known(q->type))
                return clock_mono();
        return stats_fly(s->stats, sorts[q->type].op, bytes_of(q->type, q->len));
}

void request_landed(struct session *s, const struct request *q, int64_t usec, bool failed)
{
        if (s->stats && known(q->type))
                stats_land(s->stats, sorts[q->type].op, bytes_of(q->type, q->len), usec, failed);
}
