/* A small cloud for the tests of fs/: the real control and the real mount on a store in memory.
 * Volumes are plain files DIR/vol/ID, which the test serves itself with nbdkit on the socket it
 * names, so that these tests need no blockd.  There is no compute: `start` fails.
 *
 *     fs-host MOUNT DIR NBD-SOCKET [BACKDOOR-SOCKET [sqlite]]
 *
 * Says "ready" when the mount answers, and ends with it or with SIGTERM. */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/stat.h>

#include "backend/image/image-files.h"
#include "backend/store/memory/memory.h"
#include "backend/store/sqlite/sqlite.h"
#include "common/fileio.h"
#include "common/log.h"
#include "control/control.h"
#include "control/driver/compute.h"
#include "control/driver/image.h"
#include "control/driver/store.h"
#include "control/driver/volume.h"
#include "fs/fs.h"
#include "backdoor.h"

struct host {
        struct volume_service volumes;
        const char *dir;
        struct fs *fs;
};

static char *volume_path(struct volume_service *s, const char *id)
{
        return path_printf("%s/vol/%s", ((struct host *)s)->dir, id);
}

static int v_ping(struct volume_service *s, struct err **e)
{
        return 0;
}

static int v_create(struct volume_service *s, const char *id, uint64_t size, struct err **e)
{
        _cleanup_free_ char *path = volume_path(s, id);
        _cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

        if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
                return err_errno(e, -errno, "create %s", path);
        return 0;
}

static int v_import(struct volume_service *s, const char *id, const char *raw, struct err **e)
{
        _cleanup_free_ char *path = volume_path(s, id);

        if (link(raw, path) < 0 && errno != EEXIST)
                return err_errno(e, -errno, "link %s", raw);
        return 0;
}

/* DIR/clones has a line for each. */
static int v_clone(struct volume_service *s, const char *id, const char *parent, uint64_t size,
                   struct err **e)
{
        _cleanup_free_ char *list = path_printf("%s/clones", ((struct host *)s)->dir);
        _cleanup_file_ FILE *clones = fopen(list, "ae");
        _cleanup_free_ char *from = volume_path(s, parent);
        _cleanup_free_ char *bytes = NULL;
        _cleanup_free_ char *path = volume_path(s, id);
        _cleanup_close_ int fd = -1;
        size_t n;
        int r;

        if (clones)
                fprintf(clones, "%s %s\n", id, parent);
        r = file_read(from, 64 << 20, &bytes, &n, e);

        if (r == 0)
                r = v_create(s, id, size, e);
        if (r < 0)
                return r;
        fd = open(path, O_RDWR | O_CLOEXEC);
        return fd < 0 ? -errno : pwrite_full(fd, bytes, n, 0);
}

static int v_remove(struct volume_service *s, const char *id, struct err **e)
{
        _cleanup_free_ char *path = volume_path(s, id);

        unlink(path);
        return 0;
}

static int v_stat(struct volume_service *s, const char *id, struct volume_facts *ret,
                  struct err **e)
{
        _cleanup_free_ char *path = volume_path(s, id);
        struct stat st;

        if (stat(path, &st) < 0)
                return err_errno(e, -errno, "%s", path);
        *ret = (struct volume_facts){.size = (uint64_t)st.st_size,
                                     .used = (uint64_t)st.st_blocks * 512};
        snprintf(ret->id, sizeof(ret->id), "%s", id);
        return 0;
}

static int v_list(struct volume_service *s, int (*each)(void *arg, const struct volume_facts *f),
                  void *arg, struct err **e)
{
        return 0;
}

/* DIR/limits-ID holds what was set. */
static int v_set_limits(struct volume_service *s, const char *id, const struct volume_limits *l,
                        struct err **e)
{
        _cleanup_free_ char *path = path_printf("%s/limits-%s", ((struct host *)s)->dir, id);
        char text[200];

        snprintf(text, sizeof(text),
                 "%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", l->iops,
                 l->bandwidth, l->iops_burst, l->bandwidth_burst, l->burst_seconds);
        return file_replace(path, text, strlen(text), 0600, e);
}

/* DIR/asked says that it was called; it hangs on DIR/hang, a FIFO; DIR/stats has an id and how many
 * reads it saw. */
static int v_stats(struct volume_service *s, int (*each)(void *arg, const struct volume_stats *v),
                   void *arg, struct err **e)
{
        const char *dir = ((struct host *)s)->dir;
        _cleanup_free_ char *path = path_printf("%s/stats", dir);
        _cleanup_free_ char *asked = path_printf("%s/asked", dir);
        _cleanup_free_ char *fifo = path_printf("%s/hang", dir);
        _cleanup_free_ char *text = NULL;
        _cleanup_close_ int hang = -1;
        struct volume_stats v = {.since = 1700000000000000, .in_flight = 3};
        struct volume_req_stats *reads = &v.op[VOLUME_REQ_READ];
        int r = file_replace(asked, "", 0, 0600, e);

        hang = open(fifo, O_RDONLY | O_CLOEXEC);
        if (r < 0 || file_read(path, 200, &text, NULL, NULL) < 0)
                return r;
        snprintf(v.id, sizeof(v.id), "%.36s", text);
        *reads = (struct volume_req_stats){
                .ops = strtoull(text + 36, NULL, 10), .bytes = 4096, .errors = 1, .usec = 500};
        reads->latency[9] = reads->ops;
        return each(arg, &v);
}

static int v_snapshot(struct volume_service *s, const char *id, const char *volume, struct err **e)
{
        return 0;
}

static int v_export(struct volume_service *s, const struct volume_export *x, char **ret,
                    struct err **e)
{
        return err_set(e, -ENOTSUP, "no exports here");
}

static int v_unexport(struct volume_service *s, const char *id, struct err **e)
{
        return 0;
}

static int v_list_exports(struct volume_service *s,
                          int (*each)(void *arg, const char *id, const char *volume), void *arg,
                          struct err **e)
{
        return 0;
}

static const struct volume_service_ops volume_ops = {
        .name = "files",
        .ping = v_ping,
        .create = v_create,
        .import = v_import,
        .clone = v_clone,
        .snapshot = v_snapshot,
        .resize = v_create,
        .shrink = v_create,
        .set_limits = v_set_limits,
        .stats = v_stats,
        .remove = v_remove,
        .stat = v_stat,
        .list = v_list,
        .export = v_export,
        .unexport = v_unexport,
        .list_exports = v_list_exports,
};

static int no_compute(void *arg, struct compute **ret, struct err **e)
{
        return err_set(e, -ENOTSUP, "no guests on this test cloud");
}

static void ready(void *arg)
{
        puts("ready");
        fflush(stdout);
}

static void *stop_on_signal(void *arg)
{
        struct host *h = arg;
        sigset_t set;
        int sig;

        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGUSR1);
        if (sigwait(&set, &sig) == 0 && sig == SIGTERM)
                fs_stop(h->fs);
        return NULL;
}

int main(int argc, char **argv)
{
        _cleanup_err_ struct err *e = NULL;
        struct host h = {.volumes.ops = &volume_ops};
        struct control_config cfg = {.compute = no_compute,
                                     .host = "testhost",
                                     .uid = getuid(),
                                     .gid = getgid(),
                                     .volumes = &h.volumes};
        struct fs_config mount = {.allow_other = getuid() == 0, .ready = ready};
        struct control *c = NULL;
        pthread_t signals;
        sigset_t set;
        int r;

        if (argc < 4 || argc > 6)
                return 2;
        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGUSR1);
        pthread_sigmask(SIG_BLOCK, &set, NULL);
        signal(SIGPIPE, SIG_IGN);
        h.dir = cfg.state = cfg.run = mount.state = argv[2];
        cfg.mount = mount.mountpoint = argv[1];
        h.volumes.shared_socket = argv[3];
        cfg.store = argc < 6 ? store_memory_new() : NULL;
        {
                _cleanup_free_ char *images = path_printf("%s/images", argv[2]);
                _cleanup_free_ char *volumes = path_printf("%s/vol", argv[2]);

                r = mkdir_parents(volumes, 0700, &e);
                if (r == 0)
                        r = image_files_open(images, &cfg.images, &e);
        }
        if (r == 0 && !cfg.store) {
                _cleanup_free_ char *db = path_printf("%s/store.db", argv[2]);

                r = store_sqlite_open(db, &cfg.store, &e);
        }
        if (r == 0)
                r = control_start(&cfg, &c, &e);
        if (r == 0 && argc >= 5)
                r = backdoor_open(c, argv[4], &e);
        mount.control = c;
        mount.watch = getenv("WATCH");
        if (r == 0)
                r = fs_open(&mount, &h.fs, &e);
        if (r == 0) {
                pthread_create(&signals, NULL, stop_on_signal, &h);
                r = fs_serve(h.fs);
                pthread_kill(signals, SIGUSR1);
                pthread_join(signals, NULL);
                fs_close(h.fs);
        }
        if (c)
                control_stop(c);
        if (cfg.images)
                cfg.images->ops->close_service(cfg.images);
        if (cfg.store)
                cfg.store->ops->close(cfg.store);
        if (r < 0)
                log_error("%s", e ? err_msg(e) : strerror(-r));
        return r < 0;
}
