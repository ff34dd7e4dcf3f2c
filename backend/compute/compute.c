#include "backend/compute/compute.h"

#include <sys/socket.h>
#include <sys/un.h>

#include "common/module.h"

static const char *const mode_names[] = {
        [COMPUTE_SYSTEM] = "system",
        [COMPUTE_EMBED] = "embed",
        [COMPUTE_SESSION] = "session",
        [COMPUTE_TEST] = "test",
        [COMPUTE_LXC] = "lxc",
};

const char *compute_mode_name(enum compute_mode m)
{
        return mode_names[m];
}

int compute_mode_parse(const char *text, enum compute_mode *ret, struct err **e)
{
        for (size_t i = 0; i < ARRAY_SIZE(mode_names); i++)
                if (i != COMPUTE_LXC && streq(text, mode_names[i])) {
                        *ret = (enum compute_mode)i;
                        return 0;
                }
        err_at(e, -EINVAL, text, strlen(text), 0, strlen(text), "unknown libvirt mode");
        err_hint(e, -EINVAL, "system, embed, session or test");
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
        const char *named = getenv("STRATOFS_COMPUTE");
        enum compute_mode m;

        if (named && compute_mode_parse(named, &m, NULL) == 0)
                return m;
        if (geteuid() != 0)
                return COMPUTE_SESSION;
        if (answers("/run/libvirt/libvirt-sock") || answers("/run/libvirt/virtqemud-sock"))
                return COMPUTE_SYSTEM;
        return COMPUTE_EMBED;
}

int compute_open(const struct compute_config *cfg, const struct compute_events *ev,
                 struct compute **ret, struct err **e)
{
        compute_entry entry;
        int r = module_load("backend/compute", COMPUTE_MODULE, COMPUTE_ENTRY, "libvirt", &entry, e);

        return r < 0 ? r : entry(cfg, ev, ret, e);
}

int compute_check_extra(const char *text, struct err **e)
{
        compute_check check;
        int r = module_load("backend/compute", COMPUTE_MODULE, COMPUTE_CHECK, "libvirt", &check, e);

        return r < 0 ? r : check(text, e);
}
