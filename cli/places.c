#include "cli/places.h"

#include <limits.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fileio.h"
#include "common/macro.h"

/* A UNIX socket's name has 107 bytes; "/guests/<uuid>/<name>.sock" must fit behind the run folder.
 */
enum { RUN_MAX = 107 - 56 };

static const char *home(void)
{
        const char *dir = getenv("HOME");
        const struct passwd *pw;

        if (dir && *dir == '/')
                return dir;
        pw = getpwuid(getuid());
        return pw ? pw->pw_dir : "/";
}

/* An absolute path without . and .., whose last parts need not exist.  Does not look at the last
 * part itself: a stale mount point answers nothing. */
static int absolute(const char *path, char **ret, struct err **e)
{
        _cleanup_free_ char *copy = NULL, *parent = NULL, *cwd = NULL;
        char *slash;

        if (*path != '/') {
                cwd = getcwd(NULL, 0);
                if (!cwd)
                        return err_errno(e, -errno, "current folder");
        }
        copy = path_printf("%s%s%s", cwd ? cwd : "", cwd ? "/" : "", path);
        if (!copy)
                return -ENOMEM;
        for (size_t n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--)
                copy[n - 1] = '\0';
        slash = strrchr(copy, '/');
        if (slash != copy && !streq(slash, "/..") && !streq(slash, "/.")) {
                *slash = '\0';
                parent = realpath(copy, NULL);
                *slash = '/';
        } else {
                *ret = realpath(copy, NULL);
                if (*ret)
                        return 0;
                parent = strdup("");
        }
        *ret = parent ? path_printf("%s%s", streq(parent, "/") ? "" : parent, slash)
                      : TAKE_PTR(copy);
        return *ret ? 0 : -ENOMEM;
}

/* Replaces the path in *p (owned) by its absolute form. */
static int make_absolute(char **p, struct err **e)
{
        char *path = NULL;
        int r;

        r = absolute(*p, &path, e);
        if (r < 0)
                return r;
        free(*p);
        *p = path;
        return 0;
}

static int default_state(char **ret)
{
        const char *xdg = getenv("XDG_STATE_HOME");

        if (geteuid() == 0)
                *ret = strdup("/var/lib/stratofs");
        else if (xdg && *xdg == '/')
                *ret = path_printf("%s/stratofs", xdg);
        else
                *ret = path_printf("%s/.local/state/stratofs", home());
        return *ret ? 0 : -ENOMEM;
}

static int default_run(char **ret)
{
        const char *xdg = getenv("XDG_RUNTIME_DIR");

        if (geteuid() == 0)
                *ret = strdup("/run/stratofs");
        else if (xdg && *xdg == '/')
                *ret = path_printf("%s/stratofs", xdg);
        else
                *ret = NULL; /* inside the state folder */
        return 0;
}

char *places_recall(const struct cloud *c)
{
        _cleanup_free_ char *note = path_printf("%s/mount", c->state);
        _cleanup_free_ char *path = NULL;

        if (!note || file_read(note, PATH_MAX, &path, NULL, NULL) < 0 || *path != '/')
                return NULL;
        path[strcspn(path, "\n")] = '\0';
        return TAKE_PTR(path);
}

static int fill_mount(struct cloud *c, struct err **e)
{
        if (c->mount)
                return make_absolute(&c->mount, e);
        c->mount = places_recall(c);
        if (!c->mount)
                c->mount = geteuid() == 0 ? strdup("/cloud") : path_printf("%s/cloud", home());
        return c->mount ? 0 : -ENOMEM;
}

int places_fill(struct cloud *c, struct err **e)
{
        _cleanup_free_ char *usual = NULL;
        int r;

        r = default_state(&usual);
        if (r < 0)
                return r;
        if (!c->state)
                c->state = strdup(usual);
        else
                r = make_absolute(&c->state, e);
        if (r < 0 || !c->state)
                return r < 0 ? r : -ENOMEM;
        if (streq(c->state, usual))
                default_run(&c->run);
        if (!c->run)
                c->run = path_printf("%s/run", c->state);
        if (!c->run)
                return -ENOMEM;
        if (strlen(c->run) > RUN_MAX) {
                err_set(e, -ENAMETOOLONG, "'%s' is too long for the sockets below it", c->run);
                return err_hint(e, -ENAMETOOLONG,
                                "a state folder with a path of at most %d characters", RUN_MAX - 4);
        }
        if (c->conf) {
                r = make_absolute(&c->conf, e);
                if (r < 0)
                        return r;
        }
        return fill_mount(c, e);
}

/* One folder, its mode as given even if it was there. */
static int folder(const char *path, mode_t mode, struct err **e)
{
        struct stat st;
        int r;

        r = mkdir_parents(path, mode, e);
        if (r < 0)
                return r;
        if (stat(path, &st) < 0)
                return err_errno(e, -errno, "'%s'", path);
        if (st.st_uid != geteuid())
                return err_set(e, -EPERM, "'%s' belongs to uid %u, not to us", path, st.st_uid);
        if ((st.st_mode & 07777) != mode && chmod(path, mode) < 0)
                return err_errno(e, -errno, "'%s'", path);
        return 0;
}

int places_make(const struct cloud *c, struct err **e)
{
        static const char *const inside[] = {"blockd", "stratod", "images", "log"};
        mode_t entered = geteuid() == 0 ? 0711 : 0700;
        int r;

        r = folder(c->state, entered, e);
        if (r == 0)
                r = folder(c->run, entered, e);
        for (size_t i = 0; r == 0 && i < ARRAY_SIZE(inside); i++) {
                _cleanup_free_ char *path = path_printf("%s/%s", c->state, inside[i]);
                struct stat st;

                if (!path)
                        return -ENOMEM;
                /* A daemon may have opened its own folder to its guests: leave what is there. */
                if (stat(path, &st) < 0)
                        r = folder(path, 0700, e);
        }
        return r;
}

int places_remember(const struct cloud *c, struct err **e)
{
        _cleanup_free_ char *note = path_printf("%s/mount", c->state);
        _cleanup_free_ char *line = path_printf("%s\n", c->mount);
        _cleanup_free_ char *old = places_recall(c);

        if (!note || !line)
                return -ENOMEM;
        if (old && streq(old, c->mount))
                return 0;
        return file_replace(note, line, strlen(line), 0600, e);
}

/* Whether dir/sub/name (sub may be "") can be run; then it is in *ret. */
static bool found(const char *dir, const char *sub, const char *name, char **ret)
{
        _cleanup_free_ char *path = path_printf("%s/%s%s", dir, sub, name);
        struct stat st;

        if (!path || stat(path, &st) < 0 || !S_ISREG(st.st_mode) || access(path, X_OK) < 0)
                return false;
        *ret = TAKE_PTR(path);
        return true;
}

int program_path(const char *name, char **ret, struct err **e)
{
        /* Installed, then in the build folder, where a program is in the folder of its room. */
        static const char *const places[] = {
                "../libexec/stratofs/", "../sbin/", "../blockd/", "../cli/", "../fs/",
                "../backend/compute/"};
        const char *dir = getenv("STRATOFS_PROGRAMS");
        char self[PATH_MAX];
        ssize_t n;

        if (dir) {
                if (found(dir, "", name, ret))
                        return 0;
                return err_set(e, -ENOENT, "there is no program '%s' in '%s'", name, dir);
        }
        n = readlink("/proc/self/exe", self, sizeof(self) - 1);
        if (n < 0)
                return err_errno(e, -errno, "/proc/self/exe");
        self[n] = '\0';
        *strrchr(self, '/') = '\0';
        for (size_t i = 0; i < ARRAY_SIZE(places); i++)
                if (found(self, places[i], name, ret))
                        return 0;
        if (found(STRATOFS_LIBEXEC, "", name, ret))
                return 0;
        return err_set(e, -ENOENT, "there is no program '%s' in '%s' or beside '%s'", name,
                       STRATOFS_LIBEXEC, self);
}
