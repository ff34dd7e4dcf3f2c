/* stratod: the mount, the control plane and their drivers in one process.
 *
 * Here and only here the rooms meet: drivers are opened, control is started on them, and the mount
 * on control.  Everything is put back in the reverse order. */
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <limits.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>

#include "backend/backup/backup.h"
#include "backend/blockd/client.h"
#include "backend/compute/compute.h"
#include "backend/fence/fence.h"
#include "backend/image/image-files.h"
#include "backend/network/linux/network-linux.h"
#include "backend/store/choose.h"
#include "common/drop.h"
#include "common/fault.h"
#include "common/fileio.h"
#include "common/log.h"
#include "control/control.h"
#include "control/driver/fence.h"
#include "control/driver/store.h"
#include "control/driver/volume.h"
#include "control/driver/image.h"
#include "fs/fs.h"
#include "fs/migrate.h"

enum { PROBE_MS = 15000, WATCHDOG_S = 60 };
enum { EXIT_AGAIN = 75 }; /* EX_TEMPFAIL: start the successor (stratofs-hold, stratod.service) */

struct stratod {
        char *mount, *state, *run, *watch; /* absolute */
        bool migrate;
        char *conf; /* NULL: none given; the one kept in the state folder counts */
        struct store_choice choice;
        char host[64];
        int ready_fd;
        unsigned watchdog; /* seconds */
        struct fs_holder holder;
        struct store *store;
        struct host_fence *fence; /* NULL: of one host */
        struct volume_service *volumes;
        struct image_service *images;
        struct backup_service *backups;
        struct control *control;
        struct fs *fs;
        /* Compute is opened on first use, by whichever worker comes first. */
        pthread_mutex_t compute_lock;
        struct compute *compute, *containers;
        struct network_service *network; /* likewise; the keeper asks, one at a time */
        pthread_t probe, signals;
        bool probing, waiting, leaving;
        int lock; /* the pid file, once our holder is dead */
};

/* --- compute --------------------------------------------------------------------------------- */

static void guest_changed(void *arg, const char *uuid, enum guest_state now _unused_,
                          enum guest_reason why _unused_)
{
        struct stratod *s = arg;

        if (s->control)
                control_guest_changed(s->control, uuid);
}

static void guest_left(void *arg, const char *uuid, const char *device)
{
        struct stratod *s = arg;

        control_guest_left(s->control, uuid, device);
}

static void guests_resync(void *arg)
{
        struct stratod *s = arg;

        if (s->control)
                control_guests_resync(s->control);
}

/* The mode is chosen at the first start and kept: guests of one mode are not seen in another. */
static int compute_mode(struct stratod *s, enum compute_mode *ret, struct err **e)
{
        char compute[16], accel[16];

        control_host(s->control, compute, accel);
        if (*compute)
                return compute_mode_parse(compute, ret, e);
        *ret = compute_choose();
        return control_host_set(s->control, compute_mode_name(*ret), NULL, e);
}

static int open_compute(void *arg, struct compute **ret, struct err **e)
{
        struct stratod *s = arg;
        char id[ID_TEXT_SIZE];
        struct compute_config cfg = {.state = s->state, .owner = control_id(s->control, id)};
        struct compute_events ev = {
                .changed = guest_changed, .left = guest_left, .resync = guests_resync, .arg = s};
        int r = 0;

        WITH_LOCK(&s->compute_lock);
        if (!s->compute) {
                r = compute_mode(s, &cfg.mode, e);
                if (r == 0)
                        r = compute_open(&cfg, &ev, &s->compute, e);
                if (r == 0 && fault_armed)
                        s->compute = compute_faulty(s->compute);
        }
        *ret = s->compute;
        return r;
}

/* A program of ours: in the folder of this one, or in its room's where they were built.  NULL: it
 * is not there. */
static char *beside_us(const char *room, const char *name)
{
        char self[PATH_MAX];
        ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
        _cleanup_free_ char *path = NULL;

        if (n < 0)
                return NULL;
        self[n] = '\0';
        *strrchr(self, '/') = '\0';
        path = path_printf("%s/%s", self, name);
        if (path && access(path, X_OK) < 0) {
                free(path);
                path = path_printf("%s/../%s/%s", self, room, name);
        }
        return path && access(path, X_OK) == 0 ? TAKE_PTR(path) : NULL;
}

/* By the libvirtd of the host, whatever runs its other guests. */
static int open_containers(void *arg, struct compute **ret, struct err **e)
{
        struct stratod *s = arg;
        char id[ID_TEXT_SIZE];
        _cleanup_free_ char *console = beside_us("backend/compute", "stratofs-console");
        struct compute_config cfg = {.mode = COMPUTE_LXC,
                                     .state = s->state,
                                     .owner = control_id(s->control, id),
                                     .console = console};
        struct compute_events ev = {.changed = guest_changed, .resync = guests_resync, .arg = s};
        int r = 0;

        WITH_LOCK(&s->compute_lock);
        if (!s->containers)
                r = compute_open(&cfg, &ev, &s->containers, e);
        *ret = s->containers;
        return r;
}

static int open_network(void *arg, struct network_service **ret, struct err **e)
{
        struct stratod *s = arg;
        char id[ID_TEXT_SIZE];

        if (!s->network) {
                _cleanup_free_ char *metadata = beside_us("metadata", "stratofs-metadata");

                s->network = network_linux_new(s->run, control_id(s->control, id));
                if (s->network)
                        network_linux_metadata(s->network, metadata);
                if (s->network && fault_armed)
                        s->network = network_faulty(s->network);
        }
        *ret = s->network;
        return s->network ? 0 : err_errno(e, -ENOMEM, "networks");
}

/* Boots something under KVM before anything trusts it.  Takes seconds, once in the life of a host.
 */
static void *probe_main(void *arg)
{
        _cleanup_err_ struct err *err = NULL;
        struct stratod *s = arg;
        bool kvm = false;

        if (compute_probe_kvm(s->run, PROBE_MS, &kvm, &err) < 0)
                log_warning("accelerator: %s; guests are emulated", err_msg(err));
        if (control_host_set(s->control, NULL, kvm ? "kvm" : "tcg", NULL) == 0)
                log_info("accelerator: %s", kvm ? "kvm" : "tcg");
        return NULL;
}

static void probe_host(struct stratod *s)
{
        char compute[16], accel[16];
        enum compute_mode mode;

        compute_mode(s, &mode, NULL);
        control_host(s->control, compute, accel);
        if (streq(accel, "unknown"))
                s->probing = pthread_create(&s->probe, NULL, probe_main, s) == 0;
}

/* --- start and stop ----------------------------------------------------------------------------
 */

static void say_ready(void *arg)
{
        struct stratod *s = arg;

        log_info("serving %s", s->mount);
        sd_notify(0, "READY=1\nX_VERSION=" STRATOFS_VERSION);
        if (s->ready_fd >= 0 && write(s->ready_fd, "r", 1) == 1) {
                close(s->ready_fd);
                s->ready_fd = -1;
        }
}

/* --- who keeps the session ---------------------------------------------------------------------
 */

static void keep(void *arg, int device, int memory)
{
        int r = sd_pid_notify_with_fds(0, 0, "FDSTORE=1\nFDNAME=fuse", &device, 1);

        if (r > 0)
                r = sd_pid_notify_with_fds(0, 0, "FDSTORE=1\nFDNAME=fuse-memory", &memory, 1);
        if (r < 0)
                log_warning("the mount is not held for the next start: %s", strerror(-r));
}

static void drop(void *arg)
{
        sd_notify(0, "FDSTOREREMOVE=1\nFDNAME=fuse");
        sd_notify(0, "FDSTOREREMOVE=1\nFDNAME=fuse-memory");
}

static void alive(void *arg)
{
        sd_notify(0, "WATCHDOG=1");
}

/* What the process before us left with systemd, or with stratofs-hold, which speaks like it. */
static void take_held(struct stratod *s)
{
        char **names = NULL;
        int n = sd_listen_fds_with_names(1, &names);

        s->holder = (struct fs_holder){.device = -1,
                                       .memory = -1,
                                       .keep = keep,
                                       .drop = drop,
                                       .record = getenv("STRATOFS_NO_RESEND") != NULL};
        for (int i = 0; i < n; i++) {
                int *to = streq(names[i], "fuse")          ? &s->holder.device
                          : streq(names[i], "fuse-memory") ? &s->holder.memory
                                                           : NULL;

                if (to && *to < 0)
                        *to = SD_LISTEN_FDS_START + i;
                else
                        close(SD_LISTEN_FDS_START + i);
                free(names[i]);
        }
        free(names);
}

/* systemd's own time for us, else ours; a test's before both. */
static unsigned watchdog_seconds(const struct stratod *s)
{
        const char *test = getenv("STRATOFS_WATCHDOG");
        uint64_t usec = 0;

        if (test)
                return (unsigned)MAX(1, atoi(test));
        if (sd_watchdog_enabled(0, &usec) > 0)
                return MAX(1u, (unsigned)(usec / 1000000));
        return s->watchdog;
}

/* Which store it is, by the file given or the one that was given before. */
static int choose_store(struct stratod *s, struct err **e)
{
        _cleanup_free_ char *kept = path_printf("%s/stratod.conf", s->state);
        int r;

        if (!kept)
                return err_errno(e, -ENOMEM, "configuration");
        r = store_choice_read(s->conf ?: kept, !s->conf, &s->choice, e);
        if (r == 0 && s->choice.host)
                snprintf(s->host, sizeof(s->host), "%s", s->choice.host);
        return r;
}

/* A start without --conf must not find another store than the one before. */
static int keep_choice(struct stratod *s, struct err **e)
{
        _cleanup_free_ char *kept = path_printf("%s/stratod.conf", s->state);

        if (!s->conf)
                return 0;
        if (!kept)
                return err_errno(e, -ENOMEM, "configuration");
        return file_replace(kept, s->choice.text, strlen(s->choice.text), 0644, e);
}

/* Hosts that share a store may share volumes. */
static int open_fence(struct stratod *s, struct err **e)
{
        _cleanup_free_ char *blockd = path_printf("%s/blockd", s->state);
        const struct store_rados_config *rados = &s->choice.rados;
        const struct fence_ceph_config cfg = {.conf = rados->conf,
                                              .user = rados->user,
                                              .timeout = rados->timeout,
                                              .state = blockd};

        if (!blockd)
                return err_errno(e, -ENOMEM, "fence");
        return s->choice.many ? fence_ceph_open(&cfg, &s->fence, e) : 0;
}

static int open_drivers(struct stratod *s, struct err **e)
{
        _cleanup_free_ char *dir = path_printf("%s/stratod", s->state);
        _cleanup_free_ char *db = path_printf("%s/stratod/cloud.db", s->state);
        _cleanup_free_ char *images = path_printf("%s/images", s->state);
        _cleanup_free_ char *backups = path_printf("%s/backups", s->state);
        _cleanup_free_ char *instances = path_printf("%s/instances", s->state);
        _cleanup_free_ char *unpack = beside_us("backend/image", "stratofs-unpack");
        int r;

        /* Guests' users must be able to pass through, and no more. */
        r = mkdir_parents(s->state, 0711, e);
        if (r == 0)
                r = mkdir_parents(dir, 0700, e);
        if (r == 0)
                r = mkdir_parents(instances, 0711, e);
        if (r == 0)
                r = mkdir_parents(s->run, 0711, e);
        if (r == 0)
                r = choose_store(s, e);
        if (r == 0)
                r = store_choice_open(&s->choice, db, s->host, &s->store, e);
        if (r == 0)
                r = open_fence(s, e);
        if (r == 0)
                r = keep_choice(s, e);
        if (r < 0)
                return r;
        s->volumes = blockd_client_new(s->run);
        if (!s->volumes)
                return err_errno(e, -ENOMEM, "blockd");
        s->backups = backup_files_new(backups);
        if (!s->backups)
                return err_errno(e, -ENOMEM, "backups");
        r = image_files_open(images, &s->images, e);
        if (r == 0)
                image_files_unpacker(s->images, unpack);
        if (r == 0 && fault_armed) {
                s->images = image_faulty(s->images);
                s->backups = backup_faulty(s->backups);
        }
        return r;
}

/* For benchmarks, with STRATOFS_COMPUTE=test. */
static unsigned simulated_hosts(void)
{
        const char *compute = getenv("STRATOFS_COMPUTE"), *n = getenv("STRATOFS_SIMULATE");

        return compute && streq(compute, "test") && n ? MIN((unsigned)atoi(n), 1000u) : 0;
}

static int start(struct stratod *s, struct err **e)
{
        _cleanup_free_ uint64_t *uploads = NULL;
        struct control_config cfg;
        struct fs_config mount;
        int r = open_drivers(s, e);

        if (r < 0)
                return r;
        cfg = (struct control_config){.store = s->store,
                                      .volumes = s->volumes,
                                      .images = s->images,
                                      .backups = s->backups,
                                      .compute = open_compute,
                                      /* their users are root's to give */
                                      .containers = getuid() == 0 ? open_containers : NULL,
                                      .check_extra = compute_check_extra,
                                      /* a plain user cannot make bridges */
                                      .network = getuid() == 0 ? open_network : NULL,
                                      .arg = s,
                                      .fence = s->fence,
                                      .cloud_key = s->choice.cloud_key,
                                      .lease_ms = s->choice.lease * 1000,
                                      .mount = s->mount,
                                      .state = s->state,
                                      .run = s->run,
                                      .host = s->host,
                                      .simulated = simulated_hosts(),
                                      .pool = s->choice.volumes,
                                      .uid = getuid(),
                                      .gid = getgid(),
                                      .numbers = fs_held_numbers(s->holder.memory),
                                      .nuploads = fs_held_uploads(s->holder.memory, &uploads)};
        cfg.uploads = uploads;
        r = control_start(&cfg, &s->control, e);
        if (r < 0)
                return r;
        probe_host(s);
        s->watch = beside_us("fs", "stratofs-watch");
        mount = (struct fs_config){.control = s->control,
                                   .mountpoint = s->mount,
                                   .state = s->state,
                                   .watch = s->watch,
                                   .allow_other = getuid() == 0,
                                   .ready = say_ready,
                                   .holder = &s->holder,
                                   .watchdog = watchdog_seconds(s),
                                   .alive = alive,
                                   .arg = s};
        return fs_open(&mount, &s->fs, e);
}

static void stop(struct stratod *s)
{
        if (s->fs)
                fs_close(s->fs);
        if (s->probing)
                pthread_join(s->probe, NULL);
        if (s->control)
                control_quiesce(s->control);
        if (s->containers)
                s->containers->ops->close(s->containers);
        if (s->compute)
                s->compute->ops->close(s->compute); /* no event comes from here on */
        if (s->control)
                control_stop(s->control);
        if (s->network)
                s->network->ops->close(s->network);
        if (s->images)
                s->images->ops->close_service(s->images);
        if (s->backups)
                s->backups->ops->close(s->backups);
        if (s->volumes)
                s->volumes->ops->close(s->volumes);
        if (s->fence)
                s->fence->ops->close(s->fence);
        if (s->store)
                s->store->ops->close(s->store);
        store_choice_done(&s->choice);
        free(s->conf);
        free(s->mount);
        free(s->state);
        free(s->run);
        free(s->watch);
}

static sigset_t signals_ours(void)
{
        sigset_t set;

        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGINT);
        sigaddset(&set, SIGHUP);
        sigaddset(&set, SIGUSR1);
        sigaddset(&set, SIGRTMIN);
        return set;
}

/* Our holder is dead: its lock on the pid file becomes ours, so that we are found and nobody starts
 * a second one.  The mount goes on; it ends with us. */
static void be_alone(struct stratod *s)
{
        _cleanup_free_ char *path = path_printf("%s/stratod.pid", s->run);
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

        log_warning("our holder was killed: the mount will not outlive this process");
        s->lock = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
        if (s->lock < 0 || fcntl(s->lock, F_SETLK, &lock) < 0)
                log_warning("pid file: %m");
        else if (ftruncate(s->lock, 0) == 0)
                dprintf(s->lock, "%d\n" STRATOFS_VERSION "\nalone\n", getpid());
}

/* Whether our parent has the lock on the pid file.  Then its death is a signal. */
static void watch_holder(struct stratod *s)
{
        _cleanup_free_ char *path = path_printf("%s/stratod.pid", s->run);
        _cleanup_close_ int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

        if (fd < 0 || fcntl(fd, F_GETLK, &lock) < 0 || lock.l_type == F_UNLCK ||
            lock.l_pid != getppid())
                return;
        prctl(PR_SET_PDEATHSIG, SIGRTMIN);
        if (getppid() != lock.l_pid)
                raise(SIGRTMIN);
}

/* The thread that hears signals; all others have them blocked.  SIGUSR1 is our own: the mount has
 * ended by itself. */
static void *signals_main(void *arg)
{
        struct stratod *s = arg;
        sigset_t set = signals_ours();
        int sig;

        while (sigwait(&set, &sig) == 0 && sig != SIGUSR1) {
                if (sig == SIGRTMIN) {
                        be_alone(s);
                        continue;
                }
                if (sig == SIGHUP && (s->lock >= 0 || !getenv("NOTIFY_SOCKET"))) {
                        log_warning("nobody would start a successor: this process goes on");
                        continue;
                }
                s->leaving = sig == SIGHUP;
                log_info("%s", s->leaving ? "making room for a successor" : "stopping");
                fs_stop(s->fs);
                break;
        }
        return NULL;
}

static void block_signals(void)
{
        sigset_t set = signals_ours();

        pthread_sigmask(SIG_BLOCK, &set, NULL);
        signal(SIGPIPE, SIG_IGN);
}

static int serve(struct stratod *s)
{
        int r;

        s->waiting = pthread_create(&s->signals, NULL, signals_main, s) == 0;
        r = fs_serve(s->fs);
        if (s->waiting) {
                pthread_kill(s->signals, SIGUSR1);
                pthread_join(s->signals, NULL);
        }
        return r;
}

/* --- command line --------------------------------------------------------------------------------
 */

static int usage(int status)
{
        fprintf(status ? stderr : stdout,
                "usage: stratod --mount DIR --state DIR --run DIR [--ready-fd N] [--loglevel 0-7]\n"
                "               [--watchdog SECONDS]\n"
                "               [--conf FILE]\n"
                "       stratod --migrate-store --state DIR --conf FILE\n"
                "Serves the cloud kept in the state folder at the mount point.  See stratod(8).\n");
        return status;
}

static char *absolute(const char *path)
{
        _cleanup_free_ char *cwd = NULL;

        if (path[0] == '/')
                return strdup(path);
        cwd = getcwd(NULL, 0);
        return cwd ? path_printf("%s/%s", cwd, path) : NULL;
}

static int parse(struct stratod *s, int argc, char **argv)
{
        enum { MOUNT = 256, STATE_DIR, RUN, READY, LEVEL, CONF, MIGRATE, WATCHDOG, HELP, VERSION };
        static const struct option options[] = {{"mount", required_argument, NULL, MOUNT},
                                                {"state", required_argument, NULL, STATE_DIR},
                                                {"run", required_argument, NULL, RUN},
                                                {"ready-fd", required_argument, NULL, READY},
                                                {"loglevel", required_argument, NULL, LEVEL},
                                                {"conf", required_argument, NULL, CONF},
                                                {"watchdog", required_argument, NULL, WATCHDOG},
                                                {"migrate-store", no_argument, NULL, MIGRATE},
                                                {"help", no_argument, NULL, HELP},
                                                {"version", no_argument, NULL, VERSION},
                                                {}};
        int o;

        while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
                switch (o) {
                case MOUNT:
                        s->mount = absolute(optarg);
                        break;
                case STATE_DIR:
                        s->state = absolute(optarg);
                        break;
                case RUN:
                        s->run = absolute(optarg);
                        break;
                case READY:
                        s->ready_fd = atoi(optarg);
                        break;
                case LEVEL:
                        log_set_level(atoi(optarg));
                        break;
                case WATCHDOG:
                        s->watchdog = (unsigned)MAX(0, atoi(optarg));
                        break;
                case CONF:
                        s->conf = absolute(optarg);
                        break;
                case MIGRATE:
                        s->migrate = true;
                        break;
                case HELP:
                        exit(usage(0));
                case VERSION:
                        printf("stratod %s\n", STRATOFS_VERSION);
                        exit(0);
                default:
                        return usage(2);
                }
        }
        if (s->migrate)
                return s->state && s->conf && optind == argc ? 0 : usage(2);
        return s->mount && s->state && s->run && optind == argc ? 0 : usage(2);
}

int main(int argc, char **argv)
{
        struct stratod s = {.ready_fd = -1,
                            .lock = -1,
                            .watchdog = WATCHDOG_S,
                            .compute_lock = PTHREAD_MUTEX_INITIALIZER};
        _cleanup_err_ struct err *err = NULL;
        int r = parse(&s, argc, argv);

        if (r != 0)
                return r;
        umask(0022); /* libvirt makes folders that guests must enter; what is private says so */
        mallopt(M_ARENA_MAX, 2); /* many threads, few of them busy: one arena each would be waste */
        fault_init();
        drop_dumps(geteuid() == 0); /* guests' passwords and tokens are in memory */
        if (drop_for_children(&err) < 0)
                log_warning("%s", err_msg(err));
        block_signals();
        if (gethostname(s.host, sizeof(s.host) - 1) < 0 || !name_valid(s.host))
                snprintf(s.host, sizeof(s.host), "host");
        if (s.migrate) {
                r = migrate_store(s.state, s.conf, s.host, &err);
                if (r < 0)
                        fprintf(stderr, "%s\n", err ? err_msg(err) : strerror(-r));
                if (err && err->hint)
                        fprintf(stderr, "  try: %s\n", err->hint);
                stop(&s);
                return r < 0 ? 1 : 0;
        }
        if (s.ready_fd >= 0)
                fcntl(s.ready_fd, F_SETFD, FD_CLOEXEC);
        take_held(&s);
        r = start(&s, &err);
        if (r == 0)
                watch_holder(&s);
        if (r == 0)
                r = serve(&s);
        /* What runs and what waits goes on in the successor, as after any death. */
        if (r == 0 && s.leaving)
                _exit(EXIT_AGAIN);
        if (r < 0)
                log_error("%s", err ? err_msg(err) : strerror(-r));
        stop(&s);
        return r < 0 ? 1 : 0;
}
