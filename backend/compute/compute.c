#include "backend/compute/compute.h"

#include <dlfcn.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/fileio.h"

static const char *const mode_names[] = {
        [COMPUTE_SYSTEM] = "system",
        [COMPUTE_EMBED] = "embed",
        [COMPUTE_SESSION] = "session",
};

const char *compute_mode_name(enum compute_mode m)
{
        return mode_names[m];
}

int compute_mode_parse(const char *text, enum compute_mode *ret, struct err **e)
{
        for (size_t i = 0; i < ARRAY_SIZE(mode_names); i++)
                if (streq(text, mode_names[i])) {
                        *ret = (enum compute_mode)i;
                        return 0;
                }
        err_at(e, -EINVAL, text, strlen(text), 0, strlen(text), "unknown libvirt mode");
        err_hint(e, "system, embed or session");
        return -EINVAL;
}

/* Something accepts connections there.  With socket activation this starts the daemon, as any
 * client would. */
static bool answers(const char *path)
{
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        _cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        if (fd < 0 || strlen(path) >= sizeof(sa.sun_path))
                return false;
        memcpy(sa.sun_path, path, strlen(path));
        /* EAGAIN: it listens and its queue is full. */
        return connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0 || errno == EAGAIN;
}

enum compute_mode compute_choose(void)
{
        if (geteuid() != 0)
                return COMPUTE_SESSION;
        if (answers("/run/libvirt/libvirt-sock") || answers("/run/libvirt/virtqemud-sock"))
                return COMPUTE_SYSTEM;
        return COMPUTE_EMBED;
}

/* The module: where STRATOFS_MODULES says, in the build tree this program lies in (its own folder
 * and two above), or where it was installed. */
static char *find_module(void)
{
        const char *dir = secure_getenv("STRATOFS_MODULES");
        char exe[4096];
        char *path;
        ssize_t n;

        if (dir)
                return path_printf("%s/%s", dir, COMPUTE_MODULE);
        n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
        exe[MAX(n, 0)] = '\0';
        for (int up = 0; up < 3; up++) {
                char *slash = strrchr(exe, '/');

                if (!slash)
                        break;
                *slash = '\0';
                path = path_printf("%s/backend/compute/%s", exe, COMPUTE_MODULE);
                if (!path || access(path, R_OK) == 0)
                        return path;
                free(path);
        }
        return path_printf("%s/%s", STRATOFS_MODULE_DIR, COMPUTE_MODULE);
}

int compute_open(const struct compute_config *cfg, const struct compute_events *ev,
                 struct compute **ret, struct err **e)
{
        _cleanup_free_ char *path = find_module();
        compute_entry entry;
        void *module;

        if (!path)
                return err_errno(e, -ENOMEM, "load libvirt driver");
        module = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
        if (!module) {
                err_set(e, -ENOTSUP, "load libvirt driver: %s", dlerror());
                err_hint(e, "install libvirt, or point STRATOFS_MODULES at the modules' folder");
                return -ENOTSUP;
        }
        entry = (compute_entry)dlsym(module, COMPUTE_ENTRY);
        if (!entry)
                return err_set(e, -ENOTSUP, "load libvirt driver: %s", dlerror());
        return entry(cfg, ev, ret, e);
}
