/* The successor's part of a replacement: see handover.h. */
#include <systemd/sd-daemon.h>

#include "blockd/handover.h"
#include "blockd/server.h"
#include "common/log.h"

static int add_listener(struct takeover *t, struct message *m)
{
        const char *name = json_string_value(json_object_get(m->o, "name"));
        struct held *h = &t->held;
        char **names;
        int *fds;

        if (!name || m->fd < 0)
                return -EPROTO;
        names = realloc(h->names, (h->n + 1) * sizeof(*names));
        if (names)
                h->names = names;
        fds = realloc(h->fds, (h->n + 1) * sizeof(*fds));
        if (fds)
                h->fds = fds;
        if (!names || !fds || !(names[h->n] = strdup(name)))
                return -ENOMEM;
        fds[h->n++] = TAKE_FD(m->fd);
        return 0;
}

static int take_base(struct takeover *t, struct message *m)
{
        const char *op = message_op(m);
        const char *what = json_string_value(json_object_get(m->o, "what"));

        if (streq(op, "listener"))
                return add_listener(t, m);
        if (streq(op, "lock") && what && streq(what, "state"))
                t->state_lock = TAKE_FD(m->fd);
        else if (streq(op, "lock") && what && streq(what, "run"))
                t->run_lock = TAKE_FD(m->fd);
        else if (streq(op, "start"))
                t->volumes = json_incref(json_object_get(m->o, "volumes"));
        return 0;
}

int takeover_begin(struct takeover *t, struct err **e)
{
        int r;

        r = handover_send(t->sock,
                          json_pack("{s:s, s:i}", "op", "hello", "format", HANDOVER_FORMAT), NULL,
                          0, -1);
        while (r == 0 && !t->volumes) {
                struct message m;

                r = handover_recv(t->sock, &m);
                if (r == 0) {
                        r = take_base(t, &m);
                        message_done(&m);
                }
        }
        if (r == 0 && (t->state_lock < 0 || t->run_lock < 0))
                r = -EPROTO;
        return r < 0 ? err_errno(e, r, "take over") : 0;
}

int takeover_await(struct server *s, const char *volume, struct err **e)
{
        WITH_LOCK(&s->lock);
        while (s->coming && json_object_get(s->coming, volume)) {
                if (s->stopping)
                        return err_set(e, -ESHUTDOWN, "this blockd ends");
                pthread_cond_wait(&s->gone, &s->lock);
        }
        return 0;
}

int takeover_started(struct takeover *t, struct err **e)
{
        int r;

        sd_notifyf(0, "MAINPID=%d\nREADY=1\nX_VERSION=%s", getpid(), STRATOFS_VERSION);
        r = handover_send(t->sock, json_pack("{s:s}", "op", "ok"), NULL, 0, -1);
        return r < 0 ? err_errno(e, r, "take over") : 0;
}

int takeover_conn(struct server *s, struct message *m)
{
        const char *export = NULL, *resume;
        struct conn c = {.in = m->bytes, .have = m->n};
        json_int_t deadline;
        int tcp, r;

        if (m->fd < 0 ||
            json_unpack(m->o, "{s:s, s:b, s:I, s?s}", "resume", &resume, "tcp", &tcp, "deadline",
                        &deadline, "export", &export) < 0 ||
            strlen(resume) >= sizeof(c.resume))
                return -EPROTO;
        r = handover_unpack(m->o, &c.session);
        if (r < 0)
                return r;
        strcpy(c.resume, resume);
        c.tcp = tcp;
        c.wire.deadline = deadline;
        WITH_LOCK(&s->lock);
        if (export && !(c.export = export_find(s, export)))
                return -ENOENT;
        c.wire.fd = TAKE_FD(m->fd);
        return conn_adopt(s, &c);
}

static int arrived(struct takeover *t, struct server *s, const struct message *m)
{
        const char *volume = json_string_value(json_object_get(m->o, "volume"));

        pthread_mutex_lock(&s->lock);
        json_object_del(s->coming, volume ? volume : "");
        pthread_cond_broadcast(&s->gone);
        pthread_mutex_unlock(&s->lock);
        return handover_send(t->sock, json_pack("{s:s}", "op", "ok"), NULL, 0, -1);
}

/* All is ours from here on. */
static void finish(struct takeover *t, struct server *s)
{
        pthread_mutex_lock(&s->lock);
        json_decref(TAKE_PTR(s->coming));
        pthread_cond_broadcast(&s->gone);
        pthread_mutex_unlock(&s->lock);
        volume_pool_background(s->pool, true);
        if (server_watch(s, s->control_fd, LISTEN_CONTROL) < 0)
                log_error("no control socket: %m");
        handover_send(t->sock, json_pack("{s:s}", "op", "ok"), NULL, 0, -1);
        close(TAKE_FD(t->sock));
        held_done(&s->held, true);
}

/* Not a byte may be changed any more. */
static _Noreturn void give_back(struct takeover *t, struct server *s)
{
        int r = replace_back(s, t->sock);

        log_warning("the predecessor goes on%s%s", r < 0 ? ", without our clients: " : "",
                    r < 0 ? strerror(-r) : "");
        _exit(r < 0);
}

int takeover_step(struct takeover *t, struct server *s)
{
        struct message m;
        bool last;
        int r = handover_recv(t->sock, &m);

        if (r < 0) {
                log_warning("the predecessor ended midway: its clients connect again");
                finish(t, s);
                return 1;
        }
        last = streq(message_op(&m), "done");
        if (streq(message_op(&m), "conn"))
                r = takeover_conn(s, &m);
        else if (streq(message_op(&m), "arrived"))
                r = arrived(t, s, &m);
        else if (streq(message_op(&m), "back"))
                give_back(t, s);
        if (r < 0)
                log_error("take over: %s: %s", message_op(&m), strerror(-r));
        message_done(&m);
        if (last)
                finish(t, s);
        return last;
}
