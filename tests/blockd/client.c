/* The client of the control socket against a real blockd: client BLOCKD. */
#include <assert.h>
#include <signal.h>
#include <sys/wait.h>

#include "backend/blockd/client.h"
#include "common/fileio.h"
#include "common/name.h"

#define OK(call)                                                                                   \
        do {                                                                                       \
                _cleanup_err_ struct err *e = NULL;                                                \
                int r_ = (call);                                                                   \
                if (r_ != 0) {                                                                     \
                        fprintf(stderr, "%s: %d %s\n", #call, r_, err_msg(e));                     \
                        abort();                                                                   \
                }                                                                                  \
        } while (0)
#define FAILS(want, call)                                                                          \
        do {                                                                                       \
                _cleanup_err_ struct err *e = NULL;                                                \
                int r_ = (call);                                                                   \
                if (r_ != (want) || !e || e->code != r_) {                                         \
                        fprintf(stderr, "%s: %d %s\n", #call, r_, err_msg(e));                     \
                        abort();                                                                   \
                }                                                                                  \
        } while (0)

static pid_t start(const char *blockd, const char *state, const char *run)
{
        char fd[16], byte;
        int p[2];
        pid_t pid;

        if (pipe(p) < 0)
                abort();
        pid = fork();
        if (pid == 0) {
                close(p[0]);
                snprintf(fd, sizeof(fd), "%d", p[1]);
                execl(blockd, "blockd", "--state", state, "--run", run, "--ready-fd", fd, NULL);
                _exit(127);
        }
        close(p[1]);
        if (pid < 0 || read(p[0], &byte, 1) != 1)
                abort();
        close(p[0]);
        return pid;
}

static int count(void *arg, const struct volume_facts *f)
{
        *(int *)arg += f->size == 1 << 20;
        return 0;
}

static int stop_at_first(void *arg, const struct volume_facts *f _unused_)
{
        ++*(int *)arg;
        return -ECANCELED;
}

static int count_export(void *arg, const char *id, const char *volume)
{
        *(int *)arg += streq(id, "attach-1") && strlen(volume) == 36;
        return 0;
}

static void volumes(struct volume_service *s, const char *path)
{
        char a[ID_TEXT_SIZE], b[ID_TEXT_SIZE], i[ID_TEXT_SIZE];
        struct volume_facts f;
        int n = 0;

        id_text(a, id_new());
        id_text(b, id_new());
        id_text(i, id_new());
        OK(s->ops->create(s, a, 1 << 20, &e));
        FAILS(-EEXIST, s->ops->create(s, a, 2 << 20, &e));
        OK(s->ops->import(s, i, path, &e));
        OK(s->ops->clone(s, b, i, 1 << 20, &e));
        OK(s->ops->stat(s, b, &f, &e));
        assert(streq(f.id, b) && streq(f.parent, i) && f.size == 1 << 20 && f.exports == 0);
        OK(s->ops->list(s, count, &n, &e));
        assert(n == 2);
        n = 0;
        assert(s->ops->list(s, stop_at_first, &n, NULL) == -ECANCELED && n == 1);
        OK(s->ops->resize(s, a, 2 << 20, &e));
        FAILS(-ENOENT, s->ops->stat(s, "00000000-0000-4000-8000-000000000000", &f, &e));
        OK(s->ops->remove(s, i, &e));
        OK(s->ops->remove(s, b, &e));
        OK(s->ops->remove(s, a, &e));
}

static void exports(struct volume_service *s)
{
        char a[ID_TEXT_SIZE];
        struct volume_export x = {.id = "attach-1", .volume = a, .uid = getuid(), .gid = getgid()};
        _cleanup_free_ char *socket = NULL, *again = NULL;
        struct volume_facts f;
        int n = 0;

        id_text(a, id_new());
        FAILS(-ENOENT, s->ops->export(s, &x, &socket, &e));
        OK(s->ops->create(s, a, 1 << 20, &e));
        OK(s->ops->export(s, &x, &socket, &e));
        OK(s->ops->export(s, &x, &again, &e));
        assert(streq(socket, again) && access(socket, F_OK) == 0);
        OK(s->ops->stat(s, a, &f, &e));
        assert(f.exports == 1);
        OK(s->ops->list_exports(s, count_export, &n, &e));
        assert(n == 1);
        FAILS(-EBUSY, s->ops->remove(s, a, &e));
        OK(s->ops->unexport(s, "attach-1", &e));
        OK(s->ops->unexport(s, "attach-1", &e));
        OK(s->ops->remove(s, a, &e));
}

struct seen {
        const char *id;
        struct volume_stats v;
        int n;
};

static int see(void *arg, const struct volume_stats *v)
{
        struct seen *s = arg;

        s->n++;
        if (streq(v->id, s->id))
                s->v = *v;
        return 0;
}

static void limits(struct volume_service *s)
{
        struct volume_limits l = {.iops = 5, .bandwidth = 1 << 20, .iops_burst = 9};
        char a[ID_TEXT_SIZE];
        struct seen seen = {.id = a};

        id_text(a, id_new());
        FAILS(-ENOENT, s->ops->set_limits(s, a, &l, &e));
        OK(s->ops->create(s, a, 1 << 20, &e));
        OK(s->ops->stats(s, see, &seen, &e));
        assert(seen.n == 0);
        OK(s->ops->set_limits(s, a, &l, &e));
        OK(s->ops->set_limits(s, a, &l, &e));
        OK(s->ops->stats(s, see, &seen, &e));
        assert(seen.n == 1 && seen.v.since > 0 && seen.v.op[VOLUME_REQ_READ].ops == 0);
        l.burst_seconds = UINT64_MAX;
        FAILS(-EINVAL, s->ops->set_limits(s, a, &l, &e));
        OK(s->ops->remove(s, a, &e));
        OK(s->ops->stats(s, see, &seen, &e));
        assert(seen.n == 1);
}

int main(int argc, char **argv)
{
        char dir[] = "/tmp/client.XXXXXX";
        _cleanup_free_ char *state = NULL, *run = NULL, *image = NULL;
        struct volume_service *s;
        int status;
        pid_t pid;

        if (argc != 2 || !mkdtemp(dir))
                return 2;
        state = path_printf("%s/state", dir);
        run = path_printf("%s/run", dir);
        image = path_printf("%s/image", dir);
        s = blockd_client_new(run);
        assert(s && strstr(s->shared_socket, "/nbd.sock"));
        FAILS(-ECONNREFUSED, s->ops->ping(s, &e));
        pid = start(argv[1], state, run);
        OK(s->ops->ping(s, &e));
        OK(file_replace(image, "image", 5, 0644, &e));
        volumes(s, image);
        exports(s);
        limits(s);
        kill(pid, SIGTERM);
        assert(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
        FAILS(-ECONNREFUSED, s->ops->ping(s, &e));
        s->ops->close(s);
        return remove_tree(dir, NULL) < 0;
}
