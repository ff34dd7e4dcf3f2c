/* The control socket: JSON lines, see doc/blockd.8.rst for the protocol. */
#include <jansson.h>
#include <poll.h>
#include <sys/socket.h>
#include <utlist.h>

#include "blockd/call.h"
#include "blockd/copy.h"
#include "blockd/handover.h"
#include "blockd/meter.h"
#include "blockd/server.h"
#include "common/buf.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/fileio.h"
#include "common/jsonl.h"
#include "common/log.h"

enum {
        LIST_MAX = 1000, /* volumes or exports in one answer; "more" says there are more */
        STATS_MAX = 150, /* volumes with counters: a line stays below JSONL_MAX */
        FREEZE_MS = 10000,
};

int call_args(struct call *c, struct err **e, const char *fmt, ...)
{
        json_error_t je;
        va_list ap;
        int r;

        va_start(ap, fmt);
        r = json_vunpack_ex(c->request, &je, 0, fmt, ap);
        va_end(ap);
        return r < 0 ? err_set(e, -EINVAL, "request: %s", je.text) : 0;
}

int call_size(json_int_t v, uint64_t *ret, struct err **e)
{
        if (v < 0)
                return err_set(e, -EINVAL, "request: a negative size");
        *ret = v;
        return 0;
}

static int op_ping(struct call *c, struct err **e _unused_)
{
        json_object_set_new(c->answer, "version", json_string(STRATOFS_VERSION));
        json_object_set_new(c->answer, "pid", json_integer(getpid()));
        return 0;
}

static int op_create(struct call *c, struct err **e)
{
        const char *id, *passphrase = NULL;
        json_int_t n = 0;
        uint64_t size = 0;
        int r = call_args(c, e, "{s:s, s:I, s?s}", "id", &id, "size", &n, "passphrase",
                          &passphrase);

        if (r == 0)
                r = call_size(n, &size, e);
        if (r < 0)
                return r;
        return passphrase ? volume_create_encrypted(c->server->pool, id, size, passphrase, e)
                          : volume_create(c->server->pool, id, size, e);
}

static int op_key(struct call *c, struct err **e)
{
        const char *id, *passphrase;
        int r = call_args(c, e, "{s:s, s:s}", "id", &id, "passphrase", &passphrase);

        return r < 0 ? r : volume_key(c->server->pool, id, passphrase, e);
}

static int op_rekey(struct call *c, struct err **e)
{
        const char *id, *passphrase, *next;
        int r = call_args(c, e, "{s:s, s:s, s:s}", "id", &id, "passphrase", &passphrase, "next",
                          &next);

        return r < 0 ? r : volume_rekey(c->server->pool, id, passphrase, next, e);
}

static void list_locked(void *arg, const char *family, const char *id)
{
        if (json_array_size(arg) < LIST_MAX)
                json_array_append_new(arg, json_pack("{s:s, s:s}", "family", family, "id", id));
}

static int op_locked(struct call *c, struct err **e _unused_)
{
        json_t *array = json_array();

        json_object_set_new(c->answer, "volumes", array);
        volume_locked(c->server->pool, list_locked, array);
        return 0;
}

/* For who has it open: alone, opening it and closing it again gives it up, too. */
static int op_activate(struct call *c, struct err **e)
{
        _cleanup_(volume_closep) struct volume *v = NULL;
        const char *id;
        int active = 1;
        int r = call_args(c, e, "{s:s, s?b}", "id", &id, "active", &active);

        if (r == 0)
                r = volume_open(c->server->pool, id, false, &v, e);
        if (r < 0)
                return r;
        return active ? volume_activate(v, e) : volume_deactivate(v, e);
}

static int op_copy(struct call *c, struct err **e)
{
        const char *id, *from;
        json_int_t n = 0;
        uint64_t off = 0, next;
        int r = call_args(c, e, "{s:s, s:s, s:I}", "id", &id, "from", &from, "offset", &n);

        if (r == 0)
                r = call_size(n, &off, e);
        if (r == 0)
                r = copy_piece(c->server->pool, id, from, off, &next, e);
        if (r == 0)
                json_object_set_new(c->answer, "next", json_integer(next));
        return r;
}

static int op_import(struct call *c, struct err **e)
{
        const char *id, *path;
        char own[32];
        int r = call_args(c, e, "{s:s, s:s}", "id", &id, "path", &path);

        if (r == 0 && strncmp(path, "/proc/", 6) == 0)
                r = err_set(e, -EINVAL, "'%.200s' is no place for a file", path);
        if (r < 0)
                return r;
        /* The caller may have opened it for us, who may read less. */
        snprintf(own, sizeof(own), "/proc/self/fd/%d", c->given);
        return volume_import(c->server->pool, id, c->given >= 0 ? own : path, e);
}

static int op_clone(struct call *c, struct err **e)
{
        const char *id, *parent;
        json_int_t n = 0;
        uint64_t size = 0;
        int r = call_args(c, e, "{s:s, s:s, s:I}", "id", &id, "parent", &parent, "size", &n);

        if (r == 0)
                r = call_size(n, &size, e);
        return r < 0 ? r : volume_clone(c->server->pool, id, parent, size, e);
}

static int op_snapshot(struct call *c, struct err **e)
{
        const char *id, *volume;
        int r = call_args(c, e, "{s:s, s:s}", "id", &id, "volume", &volume);

        return r < 0 ? r : volume_snapshot(c->server->pool, id, volume, e);
}

int call_not_exported(struct server *s, const char *what, const char *id, struct err **e)
{
        unsigned exports;

        pthread_mutex_lock(&s->lock);
        exports = exports_of(s, id);
        pthread_mutex_unlock(&s->lock);
        return exports > 0 ? err_set(e, -EBUSY, "%s volume '%s': it is exported", what, id) : 0;
}

static int shrink(struct server *s, const char *id, uint64_t size, struct err **e)
{
        int r;

        WITH_LOCK(&s->change);
        r = call_not_exported(s, "shrink", id, e);
        return r < 0 ? r : volume_shrink(s->pool, id, size, e);
}

static int op_resize(struct call *c, struct err **e)
{
        struct volume_info info;
        json_int_t n = 0;
        const char *id;
        uint64_t size = 0;
        int may_shrink = 0;
        int r = call_args(c, e, "{s:s, s:I, s?b}", "id", &id, "size", &n, "shrink", &may_shrink);

        if (r == 0)
                r = call_size(n, &size, e);
        if (r == 0 && may_shrink)
                r = volume_stat(c->server->pool, id, &info, e);
        if (r < 0)
                return r;
        return may_shrink && size < info.size ? shrink(c->server, id, size, e)
                                              : volume_resize(c->server->pool, id, size, e);
}

static int op_revert(struct call *c, struct err **e)
{
        const char *id, *to;
        int r = call_args(c, e, "{s:s, s:s}", "id", &id, "to", &to);

        if (r < 0)
                return r;
        WITH_LOCK(&c->server->change);
        r = call_not_exported(c->server, "revert", id, e);
        return r < 0 ? r : volume_revert(c->server->pool, id, to, e);
}

static int op_flatten(struct call *c, struct err **e)
{
        const char *id;
        int cancel = 0;
        int r = call_args(c, e, "{s:s, s?b}", "id", &id, "cancel", &cancel);

        return r < 0 ? r : volume_flatten(c->server->pool, id, cancel, e);
}

static int op_remove(struct call *c, struct err **e)
{
        const char *id;
        int r = call_args(c, e, "{s:s}", "id", &id);

        if (r < 0)
                return r;
        WITH_LOCK(&c->server->change); /* so that nobody exports it meanwhile */
        r = call_not_exported(c->server, "remove", id, e);
        if (r < 0)
                return r;
        check_cancel(c->server, id);
        r = volume_remove(c->server->pool, id, e);
        return r < 0 ? r : meter_remove(c->server, id, e);
}

static json_t *flatten_json(const struct volume_info *info)
{
        json_t *o = json_pack("{s:I, s:I}", "done", (json_int_t)info->flatten_done, "total",
                              (json_int_t)info->flatten_total);

        if (info->flatten_failed) {
                json_object_set_new(o, "errno", json_integer(-info->flatten_failed));
                json_object_set_new(o, "error", json_string(strerror(-info->flatten_failed)));
        }
        return o;
}

static json_t *info_json(struct server *s, const struct volume_info *info)
{
        unsigned exports;
        json_t *o;

        pthread_mutex_lock(&s->lock);
        exports = exports_of(s, info->id);
        pthread_mutex_unlock(&s->lock);
        o = json_pack("{s:s, s:I, s:I, s:s, s:I, s:b, s:b, s:i, s:s, s:b}", "id", info->id, "size",
                      (json_int_t)info->size, "used", (json_int_t)info->used, "parent",
                      info->parent, "exports", (json_int_t)exports, "immutable",
                      (int)info->immutable, "failed", (int)info->failed, "users", (int)info->users,
                      "family", info->family, "locked", (int)info->locked);
        if (info->flattening)
                json_object_set_new(o, "flatten", flatten_json(info));
        return o;
}

static int op_stat(struct call *c, struct err **e)
{
        struct volume_info info;
        json_auto_t *o = NULL;
        const char *id;
        int r = call_args(c, e, "{s:s}", "id", &id);

        if (r == 0)
                r = volume_stat(c->server->pool, id, &info, e);
        if (r < 0)
                return r;
        o = info_json(c->server, &info);
        return json_object_update(c->answer, o) < 0 ? err_errno(e, -ENOMEM, "stat") : 0;
}

struct listing {
        struct server *server;
        json_t *array;
        bool more;
};

static int list_one(void *arg, const struct volume_info *info)
{
        struct listing *l = arg;

        if (json_array_size(l->array) >= LIST_MAX) {
                l->more = true;
                return 1;
        }
        return json_array_append_new(l->array, info_json(l->server, info)) < 0 ? -ENOMEM : 0;
}

static int op_list(struct call *c, struct err **e)
{
        struct listing l = {.server = c->server, .array = json_array()};
        const char *after = "";
        int r = call_args(c, e, "{s?s}", "after", &after);

        json_object_set_new(c->answer, "volumes", l.array);
        if (r == 0)
                r = volume_list(c->server->pool, after, list_one, &l, e);
        json_object_set_new(c->answer, "more", json_boolean(l.more));
        return r;
}

static int op_export(struct call *c, struct err **e)
{
        _cleanup_free_ char *socket = NULL;
        struct export want = {.fd = -1};
        const char *id, *volume;
        json_int_t uid, gid;
        int readonly = 0;
        int r = call_args(c, e, "{s:s, s:s, s:I, s:I, s?b, s?o}", "id", &id, "volume", &volume,
                          "uid", &uid, "gid", &gid, "readonly", &readonly, "clients",
                          &want.clients);

        if (r < 0)
                return r;
        if (uid < 0 || gid < 0 || uid >= UINT32_MAX || gid >= UINT32_MAX)
                return err_set(e, -EINVAL, "request: no such uid or gid");
        if (strlen(id) >= EXPORT_ID_SIZE || strlen(volume) >= VOLUME_ID_SIZE)
                return err_set(e, -EINVAL, "request: an id is too long");
        strcpy(want.id, id);
        strcpy(want.volume, volume);
        want.uid = uid;
        want.gid = gid;
        want.readonly = readonly;
        r = export_add(c->server, &want, &socket, e);
        if (r == 0)
                json_object_set_new(c->answer, "socket", json_string(socket));
        return r;
}

static int op_unexport(struct call *c, struct err **e)
{
        const char *id;
        int r = call_args(c, e, "{s:s}", "id", &id);

        return r < 0 ? r : export_remove(c->server, id, e);
}

static int by_id(const struct export *a, const struct export *b)
{
        return strcmp(a->id, b->id);
}

static int op_check(struct call *c, struct err **e)
{
        int start = 0, scrub = 0, sums = 0, cancel = 0;
        const char *id, *token = "";
        struct volume_info info;
        json_int_t rate = 0;
        int r = call_args(c, e, "{s:s, s?b, s?b, s?b, s?b, s?s, s?I}", "id", &id, "start", &start,
                          "scrub", &scrub, "sums", &sums, "cancel", &cancel, "token", &token,
                          "rate", &rate);
        struct volume_check how = {.scrub = scrub, .sums = sums};

        if (r == 0)
                r = call_size(rate, &how.rate, e);
        if (r == 0)
                r = volume_stat(c->server->pool, id, &info, e);
        if (r == 0 && start)
                r = check_start(c->server, id, token, &how, e);
        if (r < 0)
                return r;
        if (cancel)
                check_cancel(c->server, id);
        check_show(c->server, id, c->answer);
        return 0;
}

static int op_list_exports(struct call *c, struct err **e)
{
        struct server *s = c->server;
        json_t *array = json_array();
        struct export *x, *tmp;
        const char *after = "";
        bool more = false;
        int r = call_args(c, e, "{s?s}", "after", &after);

        json_object_set_new(c->answer, "exports", array);
        if (r < 0)
                return r;
        WITH_LOCK(&s->lock);
        HASH_SORT(s->exports, by_id);
        HASH_ITER (hh, s->exports, x, tmp) {
                if (strcmp(x->id, after) <= 0)
                        continue;
                more = json_array_size(array) >= LIST_MAX;
                if (more)
                        break;
                json_array_append_new(
                        array, json_pack("{s:s, s:s, s:I, s:I, s:b, s:s, s:i, s:O?}", "id", x->id,
                                         "volume", x->volume, "uid", (json_int_t)x->uid, "gid",
                                         (json_int_t)x->gid, "readonly", (int)x->readonly, "socket",
                                         x->fd >= 0 ? x->socket : "", "connections",
                                         (int)x->connections, "clients", x->clients));
        }
        json_object_set_new(c->answer, "more", json_boolean(more));
        return 0;
}

static int op_limit(struct call *c, struct err **e)
{
        json_int_t v[5] = {};
        struct limit_config want;
        const char *id;
        int r = call_args(c, e, "{s:s, s?I, s?I, s?I, s?I, s?I}", "id", &id, "iops", &v[0],
                          "bandwidth", &v[1], "iops_burst", &v[2], "bandwidth_burst", &v[3],
                          "burst_seconds", &v[4]);

        if (r < 0)
                return r;
        want = (struct limit_config){v[0], v[1], v[2], v[3], v[4]}; /* negative is too large */
        WITH_LOCK(&c->server->change);
        return meter_set_limit(c->server, id, &want, e);
}

static int list_meter(void *arg, const struct meter_facts *f)
{
        struct listing *l = arg;

        if (json_array_size(l->array) >= STATS_MAX) {
                l->more = true;
                return 1;
        }
        return json_array_append_new(l->array, meter_json(f));
}

static int op_stats(struct call *c, struct err **e)
{
        struct listing l = {.server = c->server};
        const char *id = NULL, *after = "";
        struct volume_info info;
        json_auto_t *o = NULL;
        struct meter_facts f;
        int r = call_args(c, e, "{s?s, s?s}", "id", &id, "after", &after);

        if (r == 0 && id)
                r = volume_stat(c->server->pool, id, &info, e);
        if (r < 0)
                return r;
        if (id) {
                meter_read(c->server, id, &f);
                o = meter_json(&f);
                return json_object_update(c->answer, o) < 0 ? err_errno(e, -ENOMEM, "stats") : 0;
        }
        l.array = json_array();
        json_object_set_new(c->answer, "volumes", l.array);
        meters_list(c->server, after, list_meter, &l);
        json_object_set_new(c->answer, "more", json_boolean(l.more));
        return 0;
}

static int op_replace(struct call *c, struct err **e)
{
        int r = replace_run(c->server, e);

        if (r == 0)
                json_object_set_new(c->answer, "pid", json_integer(c->server->successor.pid));
        return r;
}

static int op_loglevel(struct call *c, struct err **e)
{
        int level = log_get_level();
        int r = call_args(c, e, "{s?i}", "level", &level);

        if (r < 0)
                return r;
        if (level < LOG_EMERG || level > LOG_DEBUG)
                return err_set(e, -EINVAL, "a log level is 0 to %d", LOG_DEBUG);
        log_set_level(level);
        json_object_set_new(c->answer, "level", json_integer(level));
        return 0;
}

static int op_reload_tls(struct call *c, struct err **e)
{
        if (!c->server->tcp.tls)
                return err_set(e, -ENOENT, "this blockd was started without --tls-dir");
        return tls_config_reload(c->server->tcp.tls, e);
}

static int op_fault(struct call *c, struct err **e)
{
        const char *points;
        int r = call_args(c, e, "{s:s}", "points", &points);

        if (r == 0 && (r = fault_set(points)) < 0)
                err_set(e, r,
                        r == -EPERM ? "blockd was started without STRATOFS_FAULT"
                                    : "these fault points are not understood");
        return r;
}

static const struct {
        const char *op;
        int (*run)(struct call *c, struct err **e);
} ops[] = {
        /* clang-format off */
        {"ping", op_ping},
        {"create", op_create},
        {"key", op_key},
        {"rekey", op_rekey},
        {"locked", op_locked},
        {"activate", op_activate},
        {"copy", op_copy},
        {"import", op_import},
        {"clone", op_clone},
        {"snapshot", op_snapshot},
        {"resize", op_resize},
        {"revert", op_revert},
        {"flatten", op_flatten},
        {"remove", op_remove},
        {"stat", op_stat},
        {"list", op_list},
        {"export", op_export},
        {"unexport", op_unexport},
        {"list_exports", op_list_exports},
        {"place", op_place},
        {"move", op_move},
        {"adopt", op_adopt},
        {"release", op_release},
        {"grant", op_grant},
        {"check", op_check},
        {"limit", op_limit},
        {"stats", op_stats},
        {"loglevel", op_loglevel},
        {"replace", op_replace},
        {"reload_tls", op_reload_tls},
        {"fault", op_fault},
        /* clang-format on */
};

static int dispatch(struct call *c, struct err **e)
{
        const char *op = json_string_value(json_object_get(c->request, "op"));

        if (!op)
                return err_set(e, -EINVAL, "a request is an object with a string 'op'");
        for (size_t i = 0; i < ARRAY_SIZE(ops); i++)
                if (streq(ops[i].op, op)) {
                        int r = FAULT_OF("do", op);

                        if (r == 0)
                                r = ops[i].run(c, e);
                        return r < 0 ? r : FAULT_OF("done", op);
                }
        return err_set(e, -EOPNOTSUPP, "there is no op '%.32s'", op);
}

/* An operation may begin; false: it is the successor's to do. */
static bool enter(struct server *s)
{
        WITH_LOCK(&s->lock);
        while (s->calls_held && !s->replaced)
                pthread_cond_wait(&s->gone, &s->lock);
        if (s->replaced)
                return false;
        s->calls++;
        return true;
}

static void leave(struct server *s)
{
        WITH_LOCK(&s->lock);
        s->calls--;
        pthread_cond_broadcast(&s->gone);
}

int control_freeze(struct server *s)
{
        const struct timespec until = clock_timespec(clock_now() + FREEZE_MS * INT64_C(1000));
        int r = 0;

        WITH_LOCK(&s->lock);
        if (s->calls_held || s->stopping)
                return -EBUSY;
        s->calls_held = true;
        while (s->calls > 0 && r == 0)
                r = pthread_cond_timedwait(&s->gone, &s->lock, &until);
        if (s->calls == 0)
                return 0;
        s->calls_held = false;
        pthread_cond_broadcast(&s->gone);
        return -EBUSY;
}

void control_thaw(struct server *s)
{
        WITH_LOCK(&s->lock);
        s->calls_held = false;
        pthread_cond_broadcast(&s->gone);
}

/* Replacing waits for the others, so it is none of them itself. */
static int run_call(struct call *c, struct err **e)
{
        const char *op = json_string_value(json_object_get(c->request, "op"));
        int r;

        if (op && streq(op, "replace"))
                return dispatch(c, e);
        if (!enter(c->server))
                return -ESHUTDOWN;
        r = dispatch(c, e);
        leave(c->server);
        return r;
}

static char *answer(struct server *s, const char *line, size_t n, int given)
{
        _cleanup_err_ struct err *e = NULL;
        json_error_t je;
        json_auto_t *request = json_loadb(line, n, JSON_REJECT_DUPLICATES, &je);
        json_auto_t *o = json_object();
        struct call c = {.server = s, .request = request, .answer = o, .given = given};
        int r;

        if (!o)
                return NULL;
        r = request ? run_call(&c, &e) : err_set(&e, -EINVAL, "no JSON: %s", je.text);
        if (r == -ESHUTDOWN)
                return NULL; /* no answer: the caller asks again, and finds the successor */
        if (r < 0) {
                json_object_clear(o);
                json_object_set_new(o, "errno", json_integer(-r));
                json_object_set_new(o, "error", json_string(err_msg(e)));
        }
        json_object_set_new(o, "ok", json_boolean(r >= 0));
        return json_text(o, JSON_COMPACT);
}

char *control_line(struct server *s, const char *line, size_t n)
{
        return answer(s, line, n, -1);
}

/* Answers every whole line that is in the buffer. */
static int answer_lines(struct control *c, struct buf *in, int *given)
{
        char *nl;

        while (in->len && (nl = memchr(in->data, '\n', in->len))) {
                size_t n = nl - in->data;
                _cleanup_free_ char *text = answer(c->server, in->data, n, *given);
                int r;

                if (*given >= 0) /* it was for this line */
                        close(TAKE_FD(*given));

                if (!text)
                        return -ENOMEM;
                r = send(c->fd, text, strlen(text), MSG_NOSIGNAL | MSG_MORE) < 0 ? -errno : 0;
                if (r == 0 && send(c->fd, "\n", 1, MSG_NOSIGNAL) < 0)
                        r = -errno;
                if (r < 0)
                        return r;
                in->len -= n + 1;
                memmove(in->data, nl + 1, in->len);
        }
        return in->len > JSONL_MAX || in->failed ? -EPROTO : 0;
}

/* As recv(2); the last descriptor that came is in *given. */
static ssize_t receive(int fd, char *p, size_t size, int *given)
{
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(sizeof(int))];
        } control;
        struct iovec iov = {.iov_base = p, .iov_len = size};
        struct msghdr m = {.msg_iov = &iov,
                           .msg_iovlen = 1,
                           .msg_control = &control,
                           .msg_controllen = CMSG_LEN(sizeof(int))}; /* no second one */
        ssize_t n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);

        if (n < 0)
                return n;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                        continue;
                if (*given >= 0)
                        close(*given);
                memcpy(given, CMSG_DATA(c), sizeof(*given));
        }
        return n;
}

static void *control_thread(void *arg)
{
        struct control *c = arg;
        struct server *s = c->server;
        _cleanup_buf_ struct buf in = {};
        _cleanup_close_ int given = -1;
        int r = 0;

        while (r == 0) {
                char piece[16384];
                ssize_t n = receive(c->fd, piece, sizeof(piece), &given);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        break;
                buf_add(&in, piece, n);
                r = answer_lines(c, &in, &given);
        }
        pthread_mutex_lock(&s->lock);
        DL_DELETE(s->controls, c);
        close(c->fd);
        s->ncontrols--;
        pthread_cond_broadcast(&s->gone);
        pthread_mutex_unlock(&s->lock);
        free(c);
        return NULL;
}

void control_stop(struct server *s)
{
        struct control *c;

        WITH_LOCK(&s->lock);
        s->stopping = true;
        DL_FOREACH (s->controls, c) {
                shutdown(c->fd, SHUT_RD); /* what was asked is still answered */
        }
        while (s->ncontrols > 0)
                pthread_cond_wait(&s->gone, &s->lock);
}

void control_start(struct server *s, int fd)
{
        static const char busy[] = "{\"ok\":false,\"errno\":16,\"error\":\"too many callers\"}\n";
        const struct timeval patience = {.tv_sec = SERVER_CONTROL_MS / 1000};
        struct control *c;

        WITH_LOCK(&s->lock);
        c = s->ncontrols < SERVER_CONTROL && !s->stopping ? calloc(1, sizeof(*c)) : NULL;
        if (c) {
                *c = (struct control){.server = s, .fd = fd};
                setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
                setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
                if (server_thread(control_thread, c) == 0) {
                        DL_APPEND(s->controls, c);
                        s->ncontrols++;
                        return;
                }
                free(c);
        }
        if (send(fd, busy, sizeof(busy) - 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
                log_debug("control: %m");
        close(fd);
}
