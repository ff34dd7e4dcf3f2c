/* The export table: in memory, and durably one file an export in <state>/exports.
 *
 * The guest's uid owns its socket's folder, so nothing in that folder is trusted: the socket is
 * made beside it and moved in, and only unlink and rename ever act there. */
#include <dirent.h>
#include <endian.h>
#include <jansson.h>

#include "common/jsonl.h"
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <utlist.h>

#include "blockd/clients.h"
#include "blockd/server.h"
#include "common/fault.h"
#include "common/fileio.h"
#include "common/log.h"
#include "common/name.h"

enum { FORMAT = 1, FILE_MAX = 64 << 10 };

static struct export *export_free(struct export *x)
{
        if (x) {
                if (x->fd >= 0)
                        close(x->fd);
                free(x->socket);
                json_decref(x->clients);
                free(x);
        }
        return NULL;
}

struct export *export_find(struct server *s, const char *id)
{
        struct export *x;

        HASH_FIND_STR(s->exports, id, x);
        return x;
}

static char *file_of(struct server *s, const char *id)
{
        return path_printf("%s/exports/%s.json", s->state, id);
}

static int write_file(struct server *s, const struct export *x, struct err **e)
{
        _cleanup_free_ char *path = file_of(s, x->id);
        _cleanup_free_ char *text = NULL;
        json_auto_t *o = json_pack("{s:i, s:s, s:s, s:I, s:I, s:b}", "format", FORMAT, "id", x->id,
                                   "volume", x->volume, "uid", (json_int_t)x->uid, "gid",
                                   (json_int_t)x->gid, "readonly", (int)x->readonly);

        if (o && x->clients && json_object_set(o, "clients", x->clients) < 0)
                return err_errno(e, -ENOMEM, "export");
        text = o ? json_text(o, JSON_COMPACT) : NULL;
        if (!path || !text)
                return err_errno(e, -ENOMEM, "export");
        return file_replace(path, text, strlen(text), 0600, e);
}

static int remove_file(struct server *s, const char *id, struct err **e)
{
        _cleanup_free_ char *path = file_of(s, id);
        int r;

        if (!path)
                return err_errno(e, -ENOMEM, "unexport");
        if (unlink(path) < 0 && errno != ENOENT)
                return err_errno(e, -errno, "remove '%s'", path);
        r = fsync_parent(path);
        return r < 0 ? err_errno(e, r, "sync '%s'", path) : 0;
}

/* The one that was held for us while we were away, if its name still leads to it. */
static int adopt_socket(struct server *s, struct export *x, const char *what)
{
        return held_name(x->held, what, x->socket) == 0 ? held_adopt(&s->held, x->held) : -1;
}

/* Without the power to give the folder away: it stays ours, and that one user may enter it, by an
 * access list as acl(5) and linux/posix_acl_xattr.h have it (little-endian, in order of tags).
 * Nobody may list it or make anything in it. */
static int let_pass(const char *dir, uid_t uid)
{
        enum { USER_OBJ = 1, USER = 2, GROUP_OBJ = 4, MASK = 16, OTHER = 32, ENTER = 1, ALL = 7 };
        const struct {
                uint32_t version;
                struct {
                        uint16_t tag, perm;
                        uint32_t id;
                } entries[5];
        } acl = {htole32(2),
                 {{htole16(USER_OBJ), htole16(ALL), UINT32_MAX},
                  {htole16(USER), htole16(ENTER), htole32(uid)},
                  {htole16(GROUP_OBJ), 0, UINT32_MAX},
                  {htole16(MASK), htole16(ENTER), UINT32_MAX},
                  {htole16(OTHER), 0, UINT32_MAX}}};

        if (lsetxattr(dir, "system.posix_acl_access", &acl, sizeof(acl), 0) < 0)
                return -errno;
        return 0;
}

/* The folder that only the guest may enter, and in it the socket that anyone there may use. */
static int make_socket(struct server *s, struct export *x, struct err **e)
{
        _cleanup_free_ char *dir = path_printf("%s/exports/%s", s->run, x->id);
        _cleanup_free_ char *ours = path_printf("%s/exports/.%s.sock", s->run, x->id);
        _cleanup_free_ char *what = path_printf("x.%s", x->id);
        _cleanup_close_ int fd = -1;
        int r;

        x->socket = path_printf("%s/exports/%s/nbd.sock", s->run, x->id);
        if (!dir || !ours || !what || !x->socket)
                return err_errno(e, -ENOMEM, "export");
        if (strlen(x->socket) >= 108)
                return err_set(e, -ENAMETOOLONG, "'%s' is too long for a socket's name", x->socket);
        if (mkdir(dir, 0700) < 0 && errno != EEXIST)
                return err_errno(e, -errno, "mkdir '%s'", dir);
        if (lchown(dir, x->uid, x->gid) < 0 && (errno != EPERM || let_pass(dir, x->uid) < 0))
                return err_errno(e, -errno, "give '%s' to uid %u, gid %u", dir, x->uid, x->gid);
        x->fd = adopt_socket(s, x, what);
        if (x->fd >= 0)
                return 0;
        fd = listen_unix(ours, 0666, e);
        if (fd < 0)
                return fd;
        r = held_name(x->held, what, ours);
        if (rename(ours, x->socket) < 0)
                return err_errno(e, -errno, "rename '%s'", ours);
        if (r == 0)
                held_keep(x->held, fd);
        x->fd = TAKE_FD(fd);
        return 0;
}

static void drop_socket(struct server *s, struct export *x)
{
        _cleanup_free_ char *dir = path_printf("%s/exports/%s", s->run, x->id);

        if (x->fd >= 0) {
                held_drop(x->held);
                epoll_ctl(s->epfd, EPOLL_CTL_DEL, x->fd, NULL); /* it may be held a moment longer */
                shutdown(x->fd, SHUT_RDWR);
                close(TAKE_FD(x->fd));
        }
        if (dir)
                remove_tree(dir, NULL);
}

/* One that nobody accepts on is made anew when it is asked for again. */
static int watch_socket(struct server *s, struct export *x, struct err **e)
{
        int r = FAULT("export.watch");

        if (r == 0)
                r = server_watch(s, x->fd, x->serial);
        if (r == 0)
                return 0;
        drop_socket(s, x);
        return err_errno(e, r, "watch '%s'", x->socket);
}

static int add_to_table(struct server *s, struct export *x, struct err **e)
{
        pthread_mutex_lock(&s->lock);
        x->serial = s->next_serial++;
        HASH_ADD_STR(s->exports, id, x);
        pthread_mutex_unlock(&s->lock);
        return x->fd >= 0 ? watch_socket(s, x, e) : 0;
}

static int check(const struct export *want, struct err **e)
{
        int r = name_check(want->id, strlen(want->id), e);

        return r < 0 ? err_prepend(e, r, "export id") : clients_check(want->clients, e);
}

static int same(const struct export *x, const struct export *want, char **ret_socket,
                struct err **e)
{
        if (!streq(x->volume, want->volume) || x->uid != want->uid || x->gid != want->gid ||
            x->readonly != want->readonly)
                return err_set(e, -EEXIST, "export '%s' is there for volume %s, uid %u, gid %u, %s",
                               x->id, x->volume, x->uid, x->gid, x->readonly ? "ro" : "rw");
        if (!clients_same(x->clients, want->clients))
                return err_set(e, -EEXIST, "export '%s' is there for other clients", x->id);
        *ret_socket = strdup(x->socket ? x->socket : "");
        return *ret_socket ? 0 : err_errno(e, -ENOMEM, "export");
}

static int same_again(struct server *s, struct export *x, const struct export *want,
                      char **ret_socket, struct err **e)
{
        int r = same(x, want, ret_socket, e);

        if (r < 0)
                return r;
        free(TAKE_PTR(*ret_socket));
        free(TAKE_PTR(x->socket));
        r = make_socket(s, x, e);
        if (r < 0)
                return r;
        r = watch_socket(s, x, e);
        if (r < 0)
                return r;
        *ret_socket = strdup(x->socket);
        return *ret_socket ? 0 : err_errno(e, -ENOMEM, "export");
}

static struct export *export_new(const struct export *want)
{
        struct export *x = calloc(1, sizeof(*x));

        if (!x)
                return NULL;
        *x = *want;
        x->fd = -1;
        x->socket = NULL;
        x->clients = json_incref(want->clients);
        return x;
}

int export_add(struct server *s, const struct export *want, char **ret_socket, struct err **e)
{
        struct export *x;
        int r = check(want, e);

        if (r < 0)
                return r;
        WITH_LOCK(&s->change);
        x = export_find(s, want->id);
        if (x && x->fd >= 0)
                return same(x, want, ret_socket, e);
        if (x) /* its socket could not be made at start: perhaps now */
                return same_again(s, x, want, ret_socket, e);
        r = volume_exists(s->pool, want->volume, e);
        if (r < 0)
                return r;
        x = export_new(want);
        *ret_socket = NULL;
        r = x ? make_socket(s, x, e) : err_errno(e, -ENOMEM, "export");
        if (r == 0)
                r = write_file(s, x, e);
        if (r == 0 && !(*ret_socket = strdup(x->socket)))
                r = err_errno(e, -ENOMEM, "export");
        if (r < 0) {
                if (x)
                        drop_socket(s, x);
                remove_file(s, want->id, NULL);
                export_free(x);
                return r;
        }
        r = add_to_table(s, x, e);
        if (r < 0)
                free(TAKE_PTR(*ret_socket));
        return r;
}

/* With the lock: those that x (NULL: anyone) still has.  Without memory for their threads, those at
 * rest must be asked again. */
static void disconnect(struct server *s, const struct export *x)
{
        struct timespec soon;
        struct conn *c;

        DL_FOREACH (s->conns, c) {
                if (!x || c->export == x)
                        conn_disconnect(c);
        }
        clock_gettime(CLOCK_MONOTONIC, &soon);
        soon.tv_sec++;
        pthread_cond_clockwait(&s->gone, &s->lock, CLOCK_MONOTONIC, &soon);
}

void exports_disconnect(struct server *s, struct export *x)
{
        WITH_LOCK(&s->lock);
        if (x)
                x->closing = true;
        while (x ? x->connections > 0 : s->nconns > 0)
                disconnect(s, x);
}

int export_remove(struct server *s, const char *id, struct err **e)
{
        struct export *x;
        int r;

        r = name_check(id, strlen(id), e);
        if (r < 0)
                return err_prepend(e, r, "export id");
        WITH_LOCK(&s->change);
        x = export_find(s, id);
        if (!x)
                return remove_file(s, id, e);
        r = remove_file(s, id, e);
        if (r < 0)
                return r;
        exports_disconnect(s, x);
        drop_socket(s, x);
        pthread_mutex_lock(&s->lock);
        HASH_DEL(s->exports, x);
        pthread_mutex_unlock(&s->lock);
        export_free(x);
        return 0;
}

struct export *export_of_client(struct server *s, const char *name, const struct tls *tls)
{
        struct export *x, *tmp, *found = NULL;
        bool several = false;

        HASH_ITER (hh, s->exports, x, tmp) {
                if (x->closing || !clients_allow(x->clients, tls))
                        continue;
                if (streq(x->id, name))
                        return x;
                if (!name[0] || streq(x->volume, name)) {
                        several = found;
                        found = x;
                }
        }
        return several ? NULL : found;
}

unsigned exports_of(struct server *s, const char *volume)
{
        struct export *x, *tmp;
        unsigned n = 0;

        HASH_ITER (hh, s->exports, x, tmp) {
                n += streq(x->volume, volume);
        }
        return n;
}

static int parse(const char *text, size_t n, struct export *ret, struct err **e)
{
        json_auto_t *o = json_loadb(text, n, JSON_REJECT_DUPLICATES, NULL);
        json_t *clients = json_object_get(o, "clients");
        const char *id, *volume;
        json_int_t uid, gid;
        int format = 0, readonly;

        if (json_unpack(o, "{s:i}", "format", &format) == 0 && format > FORMAT)
                return err_set(e, -ENOTSUP, "it has format %d, this program knows %d", format,
                               FORMAT);
        if (!o || format != FORMAT ||
            json_unpack(o, "{s:s, s:s, s:I, s:I, s:b}", "id", &id, "volume", &volume, "uid", &uid,
                        "gid", &gid, "readonly", &readonly) < 0 ||
            !name_valid(id) || strlen(volume) >= VOLUME_ID_SIZE || uid < 0 || gid < 0 ||
            uid > UINT32_MAX || gid > UINT32_MAX)
                return err_set(e, -EUCLEAN, "it makes no sense");
        if (clients_check(clients, e) < 0)
                return -EUCLEAN;
        *ret = (struct export){.fd = -1, .uid = uid, .gid = gid, .readonly = readonly};
        ret->clients = json_incref(clients);
        strcpy(ret->id, id);
        strcpy(ret->volume, volume);
        return 0;
}

static int restore_one(struct server *s, const char *dir, const char *name, struct err **e)
{
        _cleanup_free_ char *path = path_printf("%s/%s", dir, name);
        _cleanup_free_ char *text = NULL;
        struct export want, *x;
        size_t n;
        int r;

        if (!path)
                return err_errno(e, -ENOMEM, "export");
        r = file_read(path, FILE_MAX, &text, &n, e);
        if (r == 0)
                r = parse(text, n, &want, e);
        if (r < 0)
                return r;
        x = export_new(&want);
        json_decref(want.clients);
        if (!x)
                return err_errno(e, -ENOMEM, "export");
        r = make_socket(s, x, e);
        if (r < 0)
                log_error("export '%s': %s", x->id, err_msg(*e));
        return add_to_table(s, x, r < 0 ? NULL : e);
}

/* Socket folders of exports that are no more. */
static void collect_sockets(struct server *s, const char *dir)
{
        DIR *d = opendir(dir);
        struct dirent *de;

        while (d && (de = readdir(d))) {
                _cleanup_free_ char *path = path_printf("%s/%s", dir, de->d_name);

                if (streq(de->d_name, ".") || streq(de->d_name, "..") || !path)
                        continue;
                if (strlen(de->d_name) >= EXPORT_ID_SIZE || !export_find(s, de->d_name))
                        remove_tree(path, NULL);
        }
        if (d)
                closedir(d);
}

int exports_restore(struct server *s, struct err **e)
{
        _cleanup_free_ char *dir = path_printf("%s/exports", s->state);
        _cleanup_free_ char *run = path_printf("%s/exports", s->run);
        struct dirent *de;
        DIR *d;
        int r;

        if (!dir || !run)
                return err_errno(e, -ENOMEM, "exports");
        r = mkdir_parents(dir, 0700, e);
        if (r == 0)
                r = mkdir_parents(run, 0711, e);
        if (r < 0)
                return r;
        d = opendir(dir);
        if (!d)
                return err_errno(e, -errno, "open '%s'", dir);
        while ((de = readdir(d))) {
                _cleanup_err_ struct err *why = NULL;
                size_t n = strlen(de->d_name);

                if (n < 6 || !streq(de->d_name + n - 5, ".json") || de->d_name[0] == '.')
                        continue;
                if (restore_one(s, dir, de->d_name, &why) < 0)
                        log_error("export '%s' left out: %s", de->d_name, err_msg(why));
        }
        closedir(d);
        collect_sockets(s, run);
        return 0;
}

void exports_free(struct server *s)
{
        struct export *x, *tmp;

        HASH_ITER (hh, s->exports, x, tmp) {
                HASH_DEL(s->exports, x);
                export_free(x);
        }
}
