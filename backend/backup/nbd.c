#include "backend/backup/nbd.h"

enum { POLL_MS = 500 }; /* how soon a cancel is seen when nothing moves */

int peer_error(struct peer *p, const char *what, struct err **e)
{
        int code = nbd_get_errno();

        if (!code && p->h && nbd_aio_is_dead(p->h) > 0) /* it went in the middle of a handshake */
                code = ECONNRESET;
        if (code == ENOTCONN || code == EPIPE || code == ECONNRESET || code == ESHUTDOWN)
                code = ECONNREFUSED;
        return err_set(e, code ? -code : -EIO, "%s: %s", what, nbd_get_error() ?: "failed");
}

int peer_open(struct peer *p, const char *socket, const char *volume, const char *context,
              const struct backup_progress *progress, struct err **e)
{
        *p = (struct peer){.h = nbd_create(), .progress = progress};
        if (!p->h)
                return peer_error(p, "NBD", e);
        if (access(socket, F_OK) < 0)
                return err_set(e, -ECONNREFUSED, "blockd is not there");
        if (nbd_add_meta_context(p->h, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0 ||
            (context && nbd_add_meta_context(p->h, context) < 0) ||
            nbd_set_export_name(p->h, volume) < 0 || nbd_connect_unix(p->h, socket) < 0)
                return peer_error(p, "connect to blockd", e);
        return 0;
}

int peer_buffers(struct peer *p, size_t size, struct err **e)
{
        for (unsigned i = 0; i < SLOTS; i++) {
                p->slots.v[i].buf = malloc(size);
                if (!p->slots.v[i].buf)
                        return err_errno(e, -ENOMEM, "buffers");
        }
        return 0;
}

void peer_done(struct peer *p)
{
        nbd_close(p->h);
        for (unsigned i = 0; i < SLOTS; i++)
                free(p->slots.v[i].buf);
        *p = (struct peer){};
}

int peer_report(struct peer *p, uint64_t done, uint64_t total, struct err **e)
{
        const struct backup_progress *g = p->progress;
        int r = g && g->report ? g->report(g->arg, done, total) : 0;

        return r < 0 ? err_errno(e, r, "at byte %" PRIu64, done) : 0;
}

struct slot *peer_slot(struct peer *p)
{
        struct slots *t = &p->slots;
        struct slot *s;

        if (t->used == SLOTS)
                return NULL;
        s = &t->v[(t->first + t->used++) % SLOTS];
        s->pending = 0;
        s->error = 0;
        return s;
}

struct slot *peer_oldest(struct peer *p)
{
        return p->slots.used ? &p->slots.v[p->slots.first] : NULL;
}

void peer_free(struct peer *p)
{
        p->slots.first = (p->slots.first + 1) % SLOTS;
        p->slots.used--;
}

int peer_wait(struct peer *p, struct slot *s, struct err **e)
{
        while (s->pending > 0) {
                int r;

                if (nbd_poll(p->h, POLL_MS) < 0)
                        return peer_error(p, "blockd", e);
                r = p->progress && p->progress->poll ? p->progress->poll(p->progress->arg) : 0;
                if (r < 0)
                        return err_errno(e, r, "waiting for blockd");
        }
        if (s->error == -ENOTCONN || s->error == -ESHUTDOWN)
                return err_set(e, -ECONNREFUSED, "blockd went away");
        return s->error < 0 ? err_errno(e, s->error, "I/O of the volume") : 0;
}

static int completed(void *arg, int *error)
{
        struct slot *s = arg;

        s->pending--;
        if (*error && !s->error)
                s->error = -*error;
        return 1; /* it is over: libnbd forgets it */
}

nbd_completion_callback slot_callback(struct slot *s)
{
        s->pending++;
        return (nbd_completion_callback){.callback = completed, .user_data = s};
}
