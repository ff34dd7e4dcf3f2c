#include "blockd/owner.h"

#include <dirent.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "common/buf.h"
#include "common/drop.h"
#include "common/fileio.h"
#include "common/log.h"

enum { CONF_MAX = 1 << 20, DEPTH_MAX = 16 };

/* ---- what that user could not do ---- */

static bool readable(const char *path)
{
        return access(path, R_OK) == 0;
}

static bool key_readable(const char *dir, const char *name)
{
        _cleanup_free_ char *path = path_printf("%s/%s", dir, name);

        return path && (readable(path) || errno == ENOENT);
}

/* Where Ceph looks for the key of client.USER unless its configuration says something else. */
static bool keyring_usual(const char *user)
{
        static const char *const places[] = {"/etc/ceph/ceph.client.%s.keyring",
                                             "/etc/ceph/ceph.keyring", "/etc/ceph/keyring",
                                             "/etc/ceph/keyring.bin"};
        bool found = false;

        for (size_t i = 0; i < ARRAY_SIZE(places) && !found; i++) {
                _cleanup_free_ char *path =
                        i == 0 ? path_printf("/etc/ceph/ceph.client.%s.keyring", user)
                               : strdup(places[i]);

                found = path && readable(path);
        }
        return found;
}

/* rbd:POOL,conf=FILE,id=USER.  A configuration that names keyrings must name readable ones; one
 * with the key in it is enough. */
static bool ceph_readable(const char *pool)
{
        const char *env = getenv("CEPH_CONF"), *p;
        char conf[PATH_MAX], user[128] = "admin";
        _cleanup_free_ char *text = NULL;
        bool named = false;
        char *rest = NULL;

        snprintf(conf, sizeof(conf), "%s", env ? env : "/etc/ceph/ceph.conf");
        for (p = strchr(pool, ','); p; p = strchr(p, ',')) {
                p++;
                if (strncmp(p, "conf=", 5) == 0)
                        snprintf(conf, sizeof(conf), "%.*s", (int)strcspn(p + 5, ","), p + 5);
                else if (strncmp(p, "id=", 3) == 0)
                        snprintf(user, sizeof(user), "%.*s", (int)strcspn(p + 3, ","), p + 3);
        }
        if (file_read(conf, CONF_MAX, &text, NULL, NULL) < 0)
                return false;
        for (char *l = strtok_r(text, "\n", &rest); l; l = strtok_r(NULL, "\n", &rest)) {
                l += strspn(l, " \t");
                if (strncmp(l, "keyring", 7) != 0 || !strchr(l, '='))
                        continue;
                l = strchr(l, '=') + 1;
                l += strspn(l, " \t");
                l[strcspn(l, " \t,;#")] = '\0';
                named = true;
                /* One with variables in it is not ours to guess. */
                if (strchr(l, '$') || !readable(l))
                        return false;
        }
        return named || keyring_usual(user);
}

/* NULL, or what it lacks. */
static const char *lacks(const struct owner *o)
{
        _cleanup_free_ char *state = path_printf("%s/", o->state);

        /* The folder itself will be its own. */
        if (!state || access(dirname(state), X_OK) < 0)
                return "cannot reach the state folder";
        if (access(o->run, X_OK) < 0)
                return "cannot reach the run folder";
        if (access(o->program, X_OK) < 0)
                return "cannot run the program";
        if (o->tls_dir &&
            (!key_readable(o->tls_dir, "server-key.pem") || !key_readable(o->tls_dir, "keys.psk")))
                return "cannot read the keys of --tls-dir";
        for (unsigned i = 0; o->pools[i]; i++)
                if (strncmp(o->pools[i], "rbd:", 4) == 0 && !ceph_readable(o->pools[i]))
                        return "cannot read Ceph's configuration or keyring";
        return NULL;
}

/* The same, asked by a process that is that user already. */
static int ask(const struct owner *o, const struct drop_user *u, char *words, size_t size,
               struct err **e)
{
        _cleanup_close_ int from = -1, to = -1;
        int fds[2], status;
        ssize_t n;
        pid_t pid;

        if (pipe2(fds, O_CLOEXEC) < 0)
                return err_errno(e, -errno, "pipe");
        from = fds[0];
        to = fds[1];
        pid = fork();
        if (pid < 0)
                return err_errno(e, -errno, "fork");
        if (pid == 0) {
                const char *why = drop_to_user(u, NULL) < 0 ? "cannot be become" : lacks(o);

                if (!why)
                        _exit(0);
                _exit(write(to, why, strlen(why)) < 0 ? 2 : 1);
        }
        close(TAKE_FD(to));
        n = read(from, words, size - 1);
        words[MAX(n, 0)] = '\0';
        while (waitpid(pid, &status, 0) < 0)
                if (errno != EINTR)
                        return err_errno(e, -errno, "wait");
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
                return 1;
        return *words ? 0 : err_set(e, -EIO, "become user %u: no answer", (unsigned)u->uid);
}

/* ---- whose the files are ---- */

/* One name in a folder.  A file with a second name, an image that was uploaded, stays its
 * uploader's, and its group may do what the owner may. */
static int give_name(int dir, const char *name, const struct stat *st, const struct drop_user *u)
{
        _cleanup_close_ int fd = -1;

        if (!S_ISREG(st->st_mode) || st->st_nlink == 1 || u->uid == 0)
                return fchownat(dir, name, u->uid, u->gid, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
        fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0 || fchown(fd, -1, u->gid) < 0 ||
            fchmod(fd, (st->st_mode & 0777) | S_IRGRP | S_IWGRP) < 0)
                return -errno;
        return 0;
}

/* What is below the folder, then it: its owner says that all below is done.  Takes fd. */
static int give_tree(int fd, unsigned depth, const struct drop_user *u)
{
        DIR *d = fdopendir(fd);
        struct dirent *de;
        int r = 0;

        if (!d) {
                r = -errno;
                close(fd);
                return r;
        }
        while (r == 0 && (errno = 0, de = readdir(d))) {
                struct stat st;
                int sub;

                if (streq(de->d_name, ".") || streq(de->d_name, ".."))
                        continue;
                if (fstatat(fd, de->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
                        r = errno == ENOENT ? 0 : -errno;
                } else if (!S_ISDIR(st.st_mode)) {
                        r = give_name(fd, de->d_name, &st, u);
                } else {
                        sub = openat(fd, de->d_name,
                                     O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
                        r = sub < 0             ? errno == ENOENT ? 0 : -errno
                            : depth < DEPTH_MAX ? give_tree(sub, depth + 1, u)
                                                : close(sub); /* a guest's own mischief */
                }
        }
        if (r == 0 && (errno || fchown(fd, u->uid, u->gid) < 0))
                r = -errno;
        closedir(d);
        return r;
}

static int give(const char *top, const char *name, mode_t mode, const struct drop_user *u,
                struct err **e)
{
        _cleanup_free_ char *path = path_printf("%s%s%s", top, *name ? "/" : "", name);
        struct stat st;
        int fd, r;

        if (!path)
                return err_errno(e, -ENOMEM, "folders");
        r = mkdir_parents(path, mode, e);
        if (r < 0)
                return r;
        fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st) < 0) {
                r = -errno;
                if (fd >= 0)
                        close(fd);
                return err_errno(e, r, "open '%s'", path);
        }
        if (st.st_uid == u->uid)
                return close(fd), 0;
        log_info("'%s' is given to uid %u", path, (unsigned)u->uid);
        r = give_tree(fd, 0, u);
        return r < 0 ? err_errno(e, r, "give '%s' to uid %u", path, (unsigned)u->uid) : 0;
}

static int give_all(const struct owner *o, const struct drop_user *u, struct err **e)
{
        static const char *const sockets[] = {"nbd.sock", "blockd.sock"};
        int r = 0;

        for (size_t i = 0; r == 0 && i < ARRAY_SIZE(o->locks); i++)
                if (fchown(o->locks[i], u->uid, u->gid) < 0)
                        r = err_errno(e, -errno, "give a lock to uid %u", (unsigned)u->uid);
        if (r == 0)
                r = give(o->run, "map", 0700, u, e);
        if (r == 0)
                r = give(o->run, "exports", 0711, u, e);
        if (r == 0 && o->pools[0] && o->pools[1])
                r = give(o->run, "pools", 0700, u, e);
        for (size_t i = 0; r == 0 && i < ARRAY_SIZE(sockets); i++) {
                _cleanup_free_ char *path = path_printf("%s/%s", o->run, sockets[i]);

                if (!path || lchown(path, u->uid, u->gid) < 0)
                        r = err_errno(e, path ? -errno : -ENOMEM, "give '%s' away", sockets[i]);
        }
        return r < 0 ? r : give(o->state, "", 0711, u, e);
}

/* ---- who we are ---- */

int owner_become(const struct owner *o, struct err **e)
{
        char words[128] = "";
        struct drop_user u;
        int r;

        drop_dumps(o->user || geteuid() == 0);
        if (o->succeeds)
                return 0;
        if (o->user && geteuid() == 0) {
                r = drop_find_user(o->user, &u, e);
                if (r == 0)
                        r = ask(o, &u, words, sizeof(words), e);
                if (r < 0)
                        return r;
                if (r == 0) {
                        log_warning(
                                "user '%s' (uid %u) %s: blockd stays root, without capabilities",
                                o->user, (unsigned)u.uid, words);
                        u = (struct drop_user){};
                }
                r = give_all(o, &u, e);
                if (r == 0)
                        r = drop_to_user(&u, e);
                if (r < 0)
                        return r;
                log_info("blockd runs as uid %u, without capabilities", (unsigned)u.uid);
        }
        return drop_calls(DROP_KERNEL, e);
}

int owner_of(const char *state, struct err **e)
{
        struct drop_user u = {};
        struct stat st;

        if (stat(state, &st) < 0)
                return err_errno(e, -errno, "open");
        u.uid = st.st_uid;
        u.gid = st.st_gid;
        return geteuid() == 0 && u.uid != 0 ? drop_to_user(&u, e) : 0;
}
