/* The module's entry: from a configuration to a running driver. */
#include "backend/compute/libvirt/driver.h"

#include <libxml/parser.h>
#include <signal.h>
#include <sys/stat.h>

#include "common/fault.h"
#include "common/fileio.h"

int stratofs_compute_open(const struct compute_config *cfg, const struct compute_events *ev,
                          struct compute **ret, struct err **e);

/* libvirt appends this to the folder of its root: "/lib/qemu/domain-NUMBER-NAME/monitor.sock",
 * NAME cut at 20 characters.  It has to fit a sockaddr_un. */
enum { SOCKET_BELOW_ROOT = 62, SOCKET_MAX = 107 };

/* No virtlogd: the console log is a plain file.  No AppArmor: libvirt would make profiles for a
 * libvirtd, which this process is not; what separates guests is a uid each, which the caller
 * gives.  No chown of kernels and images on the way: they are not libvirt's. */
static const char qemu_conf[] = "stdio_handler = \"file\"\n"
                                "security_driver = \"none\"\n"
                                "dynamic_ownership = 0\n"
                                "remember_owner = 0\n";

/* libvirt asks before each start whether its own user may open /dev/kvm, and probes its QEMU anew,
 * for a second or more, whenever the answer is not what QEMU itself found.  Where the file's group
 * is not the one that Debian gives it (containers), they never agree: so its user gets that group.
 */
static void kvm_group(char ret[32])
{
        struct stat st;

        *ret = '\0';
        if (geteuid() == 0 && stat("/dev/kvm", &st) == 0 && (st.st_mode & 0666) == 0660)
                snprintf(ret, 32, "group = \"+%u\"\n", (unsigned)st.st_gid);
}

int stratofs_compute_check(const char *text, struct err **e);

__attribute__((visibility("default"))) int stratofs_compute_check(const char *text, struct err **e)
{
        return xml_check_extra(text, e);
}


static const struct compute_ops ops = {
        .name = "libvirt",
        .start = op_start,
        .shutdown = op_shutdown,
        .destroy = op_destroy,
        .reboot = op_reboot,
        .pause = op_pause,
        .resume = op_resume,
        .save = op_save,
        .saved = op_saved,
        .restore = op_restore,
        .keys = op_keys,
        .set_vcpus = op_set_vcpus,
        .set_memory = op_set_memory,
        .media = op_media,
        .screen = op_screen,
        .stats = op_stats,
        .nmi = op_nmi,
        .describe = op_describe,
        .password = op_password,
        .freeze = op_freeze,
        .thaw = op_thaw,
        .attach = op_attach,
        .settle = op_settle,
        .detach = op_detach,
        .plug = op_plug,
        .unplug = op_unplug,
        .grow = op_grow,
        .state = op_state,
        .list = op_list,
        .adopt = op_adopt,
        .release = op_release,
        .migrate = op_migrate,
        .close = op_close,
        .warm = op_warm,
};

/* Guests run as users of their own and read below root: each folder above must let them pass. */
static int check_way(const char *root, struct err **e)
{
        _cleanup_free_ char *path = strdup(root);
        struct stat st;

        if (!path)
                return err_errno(e, -ENOMEM, "open '%s'", root);
        for (char *slash = strrchr(path, '/'); slash && slash != path; slash = strrchr(path, '/')) {
                *slash = '\0';
                if (stat(path, &st) < 0)
                        return err_errno(e, -errno, "look at '%s'", path);
                if (!(st.st_mode & S_IXOTH)) {
                        err_set(e, -EACCES, "guests' users cannot enter '%s'", path);
                        err_hint(e, -EACCES, "chmod o+x '%s'", path);
                        return -EACCES;
                }
        }
        return 0;
}

static int prepare_root(struct driver *d, const char *state, struct err **e)
{
        _cleanup_free_ char *real = NULL, *etc = NULL, *conf = NULL;
        char text[sizeof(qemu_conf) + 32], group[32];
        int r = mkdir_parents(state, 0711, e);

        if (r < 0)
                return r;
        real = realpath(state, NULL);
        d->root = real ? path_printf("%s/libvirt", real) : NULL;
        etc = d->root ? path_printf("%s/etc", d->root) : NULL;
        conf = etc ? path_printf("%s/qemu.conf", etc) : NULL;
        if (!conf)
                return err_errno(e, -errno, "open '%s'", state);
        if (strlen(d->root) + SOCKET_BELOW_ROOT > SOCKET_MAX) {
                err_set(e, -ENAMETOOLONG, "folder name too long for libvirt's sockets: '%s'",
                        d->root);
                err_hint(e, -ENAMETOOLONG, "at most %d bytes", SOCKET_MAX - SOCKET_BELOW_ROOT);
                return -ENAMETOOLONG;
        }
        r = mkdir_parents(etc, 0711, e);
        if (r == 0 && chmod(d->root, 0711) < 0)
                r = err_errno(e, -errno, "open '%s'", d->root);
        if (r == 0)
                r = check_way(d->root, e);
        kvm_group(group);
        snprintf(text, sizeof(text), "%s%s", qemu_conf, group);
        if (r == 0)
                r = file_replace(conf, text, strlen(text), 0644, e);
        return r;
}

static int choose_uri(struct driver *d, const struct compute_config *cfg, struct err **e)
{
        int r = 0;

        switch (cfg->mode) {
        case COMPUTE_SYSTEM:
                d->uri = strdup("qemu:///system");
                break;
        case COMPUTE_SESSION:
                d->uri = strdup("qemu:///session");
                break;
        case COMPUTE_TEST:
                d->uri = strdup("test:///default");
                break;
        case COMPUTE_LXC:
                d->uri = strdup("lxc:///system");
                d->console = cfg->console ? strdup(cfg->console) : NULL;
                break;
        case COMPUTE_EMBED:
                r = prepare_root(d, cfg->state, e);
                if (r < 0)
                        return r;
                d->uri = path_printf("qemu:///embed?root=%s", d->root);
                break;
        }
        d->owner = strdup(cfg->owner ? cfg->owner : "stratofs");
        return d->uri && d->owner ? 0 : err_errno(e, -ENOMEM, "open libvirt");
}

static void quiet(void *arg, virErrorPtr v)
{
        /* Errors go up with their words; libvirt would print them to stderr as well. */
}

/* libvirt's client writes to a libvirtd that died, without MSG_NOSIGNAL. */
static void ignore_sigpipe(void)
{
        struct sigaction sa;

        if (sigaction(SIGPIPE, NULL, &sa) == 0 && sa.sa_handler == SIG_DFL)
                signal(SIGPIPE, SIG_IGN);
}

static void library_init(void)
{
        fault_init(); /* of this module's own copy */
        ignore_sigpipe();
        virInitialize();
        virSetErrorFunc(NULL, quiet);
        virEventRegisterDefaultImpl();
        xmlInitParser();
}

static int start_loop(struct driver *d, struct err **e)
{
        static pthread_once_t once = PTHREAD_ONCE_INIT;
        int r;

        pthread_once(&once, library_init);
        r = loop_hold(e);
        d->loop_held = r == 0;
        return r;
}

/* Copes with a driver that was opened half-way. */
void op_close(struct compute *c)
{
        struct driver *d = driver(c);

        pthread_mutex_lock(&d->lock);
        d->closing = true;
        pthread_cond_broadcast(&d->cond);
        pthread_mutex_unlock(&d->lock);
        if (d->link_started)
                pthread_join(d->link, NULL);
        link_close(d);
        if (d->loop_held)
                loop_drop();
        reaper_stop(d->reaper);
        unplug_forget_all(d);
        pthread_cond_destroy(&d->cond);
        pthread_mutex_destroy(&d->lock);
        for (size_t i = 0; i < SEAT_LOCKS; i++)
                pthread_mutex_destroy(&d->seats[i]);
        free(d->down);
        free(d->console);
        free(d->owner);
        free(d->root);
        free(d->uri);
        free(d);
}

static struct driver *driver_new(const struct compute_config *cfg, const struct compute_events *ev)
{
        struct driver *d = calloc(1, sizeof(*d));
        pthread_condattr_t attr;

        if (!d)
                return NULL;
        d->base.ops = cfg->mode == COMPUTE_LXC ? &lxc_ops : &ops;
        d->mode = cfg->mode;
        d->reconnect = cfg->reconnect ? (int)cfg->reconnect : RECONNECT_S;
        if (ev)
                d->ev = *ev;
        pthread_mutex_init(&d->lock, NULL);
        for (size_t i = 0; i < SEAT_LOCKS; i++)
                pthread_mutex_init(&d->seats[i], NULL);
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_cond_init(&d->cond, &attr);
        pthread_condattr_destroy(&attr);
        return d;
}

/* The first connection.  A daemon that is down is the link thread's to wait for. */
static int first_open(struct driver *d, struct err **e)
{
        _cleanup_err_ struct err *why = NULL;
        int r = link_open(d, &why);

        if (d->mode == COMPUTE_EMBED) {
                if (r == 0)
                        reaper_watch_all(d->reaper, d->root);
                /* libvirt locks a pid file; nothing but its words tells that this is it. */
                if (r < 0 && strstr(err_msg(why), "pid file"))
                        return err_set(e, -EBUSY, "another process serves '%s'", d->root);
        } else {
                if (r < 0)
                        d->down = strdup(err_msg(why));
                if (r == -ECONNREFUSED)
                        r = 0;
        }
        if (r < 0)
                return err_move(e, TAKE_PTR(why));
        r = -pthread_create(&d->link, NULL, link_run, d);
        if (r < 0)
                return err_errno(e, r, "open libvirt");
        d->link_started = true;
        return 0;
}

__attribute__((visibility("default"))) int stratofs_compute_open(const struct compute_config *cfg,
                                                                 const struct compute_events *ev,
                                                                 struct compute **ret,
                                                                 struct err **e)
{
        struct driver *d = driver_new(cfg, ev);
        int r;

        if (!d)
                return err_errno(e, -ENOMEM, "open libvirt");
        r = choose_uri(d, cfg, e);
        if (r == 0 && d->mode == COMPUTE_EMBED)
                r = reaper_start(&d->reaper, e);
        if (r == 0)
                r = start_loop(d, e);
        if (r == 0)
                r = first_open(d, e);
        if (r < 0) {
                op_close(&d->base);
                return r;
        }
        *ret = &d->base;
        return 0;
}
