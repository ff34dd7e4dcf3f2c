/* Random operations on an export against a model of its bytes, several in flight on ranges that do
 * not overlap: fsx BLOCKD [--ops N] [--long N] [--seed N] [--restart kill|clean]
 * [--every MS].  --long is --ops where STRATOFS_LONG is set.
 *
 * With --restart, blockd ends and is started again every so often.  What was in flight then has
 * happened or not, byte by byte: the range is read before anything else may touch it.  What was
 * acknowledged must be there. */
#include <getopt.h>
#include <libnbd.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "backend/blockd/client.h"
#include "common/clock.h"
#include "common/fileio.h"
#include "common/name.h"

enum {
        CONNECTIONS = 3, /* the last one with simple replies */
        SLOTS = 24,
        SMALL = 64 << 10,
        LARGE = 2 << 20,
        SIZE = (48 << 20) + 512 * 5,
};

enum op { OP_WRITE, OP_READ, OP_ZERO, OP_TRIM, OP_FLUSH, OP_CACHE, OP_STATUS, OPS };
static const char *const names[] = {"write", "read", "zero", "trim", "flush", "cache", "status"};
static const unsigned weights[] = {32, 38, 9, 7, 2, 3, 9}; /* of 100 */

struct slot {
        struct fsx *fsx;
        bool busy;   /* its range is taken */
        bool settle; /* a read that tells what became of `op` */
        bool again;  /* that read is to be sent */
        enum op op;
        unsigned flags;
        uint64_t off, n;
        uint8_t *data; /* what is written or was read; of a write, also kept for settling */
        uint8_t *got;
};

struct fsx {
        const char *blockd, *state, *run, *socket;
        pid_t pid;
        struct nbd_handle *nbd[CONNECTIONS];
        struct slot slots[SLOTS];
        uint8_t *model;
        uint64_t random, ops, done, restarts, settled, count[OPS];
        unsigned in_flight;
        int64_t every; /* microseconds between restarts */
        int restart;   /* a signal, or 0 */
        bool closing;  /* callbacks say nothing now */
};

#define DIE(...)                                                                                   \
        do {                                                                                       \
                fprintf(stderr, "fsx: " __VA_ARGS__);                                              \
                fputc('\n', stderr);                                                               \
                abort();                                                                           \
        } while (0)

/* xorshift64* */
static uint64_t next(struct fsx *f)
{
        f->random ^= f->random >> 12;
        f->random ^= f->random << 25;
        f->random ^= f->random >> 27;
        return f->random * UINT64_C(2685821657736338717);
}

static void fill(struct fsx *f, uint8_t *p, size_t n)
{
        for (; n >= 8; p += 8, n -= 8) {
                uint64_t v = next(f);

                memcpy(p, &v, 8);
        }
        while (n-- > 0)
                *p++ = next(f);
}

/* ---- the server ---- */

static void start(struct fsx *f)
{
        char fd[16], byte;
        int p[2];

        if (pipe(p) < 0)
                DIE("pipe: %m");
        f->pid = fork();
        if (f->pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                close(p[0]);
                snprintf(fd, sizeof(fd), "%d", p[1]);
                execl(f->blockd, "blockd", "--state", f->state, "--run", f->run, "--ready-fd", fd,
                      "--loglevel", "4", NULL);
                _exit(127);
        }
        close(p[1]);
        if (f->pid < 0 || read(p[0], &byte, 1) != 1)
                DIE("blockd did not start");
        close(p[0]);
}

static void stop(struct fsx *f, int sig)
{
        int status;

        kill(f->pid, sig);
        if (waitpid(f->pid, &status, 0) != f->pid)
                DIE("waitpid: %m");
        if (sig == SIGKILL ? WIFEXITED(status) : !WIFEXITED(status) || WEXITSTATUS(status) != 0)
                DIE("blockd ended with status %#x", status);
}

static void prepare(struct fsx *f)
{
        struct volume_service *s = blockd_client_new(f->run);
        char base[ID_TEXT_SIZE], clone[ID_TEXT_SIZE];
        struct volume_export x = {.id = "fsx", .volume = clone, .uid = getuid(), .gid = getgid()};
        _cleanup_err_ struct err *e = NULL;
        char *socket;

        id_text(base, id_new());
        id_text(clone, id_new());
        if (!s || s->ops->create(s, base, SIZE - 8192 - 512, &e) < 0 ||
            s->ops->clone(s, clone, base, SIZE, &e) < 0 || s->ops->export(s, &x, &socket, &e) < 0)
                DIE("prepare: %s", err_msg(e));
        f->socket = socket;
        s->ops->close(s);
}

static void connect_all(struct fsx *f)
{
        for (int i = 0; i < CONNECTIONS; i++) {
                f->nbd[i] = nbd_create();
                if (!f->nbd[i] || nbd_add_meta_context(f->nbd[i], LIBNBD_CONTEXT_BASE_ALLOCATION) ||
                    nbd_set_request_structured_replies(f->nbd[i], i < CONNECTIONS - 1) < 0 ||
                    nbd_connect_unix(f->nbd[i], f->socket) < 0)
                        DIE("connect: %s", nbd_get_error());
        }
}

static void close_all(struct fsx *f)
{
        f->closing = true;
        for (int i = 0; i < CONNECTIONS; i++)
                nbd_close(f->nbd[i]);
        f->closing = false;
}

/* ---- verifying ---- */

static void differ(const struct slot *s, uint64_t i, const char *what)
{
        const uint8_t *m = s->fsx->model + s->off;

        DIE("%s of %llu bytes at %llu (%s): byte %llu is %#x, not %#x", names[s->op],
            (unsigned long long)s->n, (unsigned long long)s->off, what,
            (unsigned long long)(s->off + i), s->got[i], m[i]);
}

static void check_read(struct slot *s)
{
        const uint8_t *m = s->fsx->model + s->off;

        if (memcmp(s->got, m, s->n) == 0)
                return;
        for (uint64_t i = 0; i < s->n; i++)
                if (s->got[i] != m[i])
                        differ(s, i, "verified");
}

/* Each byte is as before or as the operation would have it; from now on it is what it is. */
static void check_settled(struct slot *s)
{
        uint8_t *m = s->fsx->model + s->off;

        for (uint64_t i = 0; i < s->n; i++)
                if (s->got[i] != m[i] && s->got[i] != (s->op == OP_WRITE ? s->data[i] : 0))
                        differ(s, i, "settled");
        memcpy(m, s->got, s->n);
        s->fsx->settled++;
}

static void finish(struct slot *s)
{
        uint8_t *m = s->fsx->model + s->off;

        if (s->settle)
                check_settled(s);
        else if (s->op == OP_READ)
                check_read(s);
        else if (s->op == OP_WRITE)
                memcpy(m, s->data, s->n);
        else if (s->op == OP_ZERO)
                memset(m, 0, s->n);
        else if (s->op == OP_TRIM) { /* it may have done something or nothing: look */
                s->settle = s->again = true;
                return;
        }
        s->busy = s->settle = false;
        s->fsx->done++;
}

static int completed(void *arg, int *error)
{
        struct slot *s = arg;

        if (s->fsx->closing)
                return 1;
        if (*error)
                DIE("%s%s of %llu bytes at %llu, flags %#x: %s", s->settle ? "settling " : "",
                    names[s->op], (unsigned long long)s->n, (unsigned long long)s->off, s->flags,
                    strerror(*error));
        s->fsx->in_flight--;
        finish(s);
        return 1;
}

static int extents(void *arg, const char *context _unused_, uint64_t off, uint32_t *entries,
                   size_t n, int *error _unused_)
{
        struct slot *s = arg;

        if (s->fsx->closing)
                return 0;
        for (size_t i = 0; i + 1 < n; off += entries[i], i += 2) {
                uint64_t k = MIN((uint64_t)entries[i], s->off + s->n - off);

                if (off < s->off || entries[i] == 0 || off >= s->off + s->n)
                        DIE("status of %llu bytes at %llu tells of %u at %llu",
                            (unsigned long long)s->n, (unsigned long long)s->off, entries[i],
                            (unsigned long long)off);
                for (uint64_t j = 0; entries[i + 1] & LIBNBD_STATE_ZERO && j < k; j++)
                        if (s->fsx->model[off + j] != 0)
                                DIE("status: byte %llu is %#x and no zero",
                                    (unsigned long long)(off + j), s->fsx->model[off + j]);
        }
        return 0;
}

/* ---- asking ---- */

static bool overlaps(const struct fsx *f, uint64_t off, uint64_t n)
{
        for (int i = 0; i < SLOTS; i++) {
                const struct slot *s = &f->slots[i];

                if (s->busy && s->off < off + n && off < s->off + s->n)
                        return true;
        }
        return false;
}

static void choose(struct fsx *f, struct slot *s)
{
        unsigned k = next(f) % 100;

        for (s->op = 0; k >= weights[s->op]; s->op++)
                k -= weights[s->op];
        do {
                uint64_t max = next(f) % 16 ? SMALL : LARGE;

                s->n = 1 + next(f) % (max >> next(f) % 16); /* as often small as large */
                s->off = next(f) % (SIZE - s->n + 1);
                switch (next(f) % 4) {
                case 0:
                        s->off = s->off / 4096 * 4096;
                        s->n = MIN((s->n + 4095) / 4096 * 4096, SIZE - s->off);
                        break;
                case 1:
                        s->off = s->off / 512 * 512;
                        break;
                case 2: /* the end, and where the parent ends, are edges */
                        if (next(f) % 8 == 0)
                                s->off = SIZE - s->n - (next(f) % 2 ? 0 : MIN(SIZE - s->n, 8192ul));
                        break;
                }
        } while (overlaps(f, s->off, s->n));
        s->flags = 0;
        if ((s->op == OP_WRITE || s->op == OP_ZERO || s->op == OP_TRIM) && next(f) % 64 == 0)
                s->flags |= LIBNBD_CMD_FLAG_FUA;
        if (s->op == OP_ZERO && next(f) % 2)
                s->flags |= LIBNBD_CMD_FLAG_NO_HOLE;
}

static int64_t send_one(struct slot *s, struct nbd_handle *h)
{
        const nbd_completion_callback done = {.callback = completed, .user_data = s};
        const nbd_extent_callback each = {.callback = extents, .user_data = s};

        if (s->settle || s->op == OP_READ)
                return nbd_aio_pread(h, s->got, s->n, s->off, done, 0);
        switch (s->op) {
        case OP_WRITE:
                return nbd_aio_pwrite(h, s->data, s->n, s->off, done, s->flags);
        case OP_ZERO:
                return nbd_aio_zero(h, s->n, s->off, done, s->flags);
        case OP_TRIM:
                return nbd_aio_trim(h, s->n, s->off, done, s->flags);
        case OP_FLUSH:
                return nbd_aio_flush(h, done, 0);
        case OP_CACHE:
                return nbd_aio_cache(h, s->n, s->off, done, 0);
        default:
                return nbd_aio_block_status(h, s->n, s->off, each, done, 0);
        }
}

static void ask(struct fsx *f, struct slot *s)
{
        /* Only structured replies have BLOCK_STATUS. */
        unsigned n = s->op == OP_STATUS ? CONNECTIONS - 1 : CONNECTIONS;

        s->again = false;
        f->in_flight++;
        if (send_one(s, f->nbd[next(f) % n]) < 0)
                DIE("%s: %s", names[s->op], nbd_get_error());
}

static void ask_all(struct fsx *f)
{
        for (int i = 0; i < SLOTS; i++) {
                struct slot *s = &f->slots[i];

                if (s->busy && s->again)
                        ask(f, s);
                if (s->busy || f->ops == 0)
                        continue;
                choose(f, s);
                s->busy = true;
                f->ops--;
                f->count[s->op]++;
                if (s->op == OP_WRITE)
                        fill(f, s->data, s->n);
                ask(f, s);
        }
}

/* ---- all together ---- */

static void wait_replies(struct fsx *f)
{
        struct pollfd p[CONNECTIONS];

        for (int i = 0; i < CONNECTIONS; i++) {
                unsigned dir = nbd_aio_get_direction(f->nbd[i]);

                p[i] = (struct pollfd){.fd = nbd_aio_get_fd(f->nbd[i])};
                p[i].events = (dir & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
                              (dir & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0);
        }
        if (poll(p, CONNECTIONS, 60000) <= 0)
                DIE("no reply for a minute");
        for (int i = 0; i < CONNECTIONS; i++) {
                unsigned dir = nbd_aio_get_direction(f->nbd[i]);
                int r = 0;

                if (p[i].revents & (POLLIN | POLLHUP | POLLERR) && dir & LIBNBD_AIO_DIRECTION_READ)
                        r = nbd_aio_notify_read(f->nbd[i]);
                else if (p[i].revents & POLLOUT && dir & LIBNBD_AIO_DIRECTION_WRITE)
                        r = nbd_aio_notify_write(f->nbd[i]);
                if (r < 0)
                        DIE("connection %d: %s", i, nbd_get_error());
        }
}

static void restart(struct fsx *f)
{
        stop(f, f->restart);
        close_all(f);
        start(f);
        connect_all(f);
        f->in_flight = 0;
        f->restarts++;
        for (int i = 0; i < SLOTS; i++) {
                struct slot *s = &f->slots[i];

                if (!s->busy)
                        continue;
                s->again = true;
                s->settle |= s->op == OP_WRITE || s->op == OP_ZERO || s->op == OP_TRIM;
        }
}

static void run(struct fsx *f)
{
        int64_t next_restart = clock_mono() + f->every;

        for (;;) {
                ask_all(f);
                if (f->in_flight == 0)
                        return;
                wait_replies(f);
                if (f->restart && clock_mono() >= next_restart) {
                        restart(f);
                        next_restart = clock_mono() + f->every;
                }
        }
}

static void compare_all(struct fsx *f)
{
        struct slot *s = &f->slots[0];

        s->op = OP_READ;
        for (s->off = 0; s->off < SIZE; s->off += s->n) {
                s->n = MIN(LARGE, SIZE - s->off);
                if (nbd_pread(f->nbd[0], s->got, s->n, s->off, 0) < 0)
                        DIE("%s", nbd_get_error());
                check_read(s);
        }
}

static void set_up(struct fsx *f, const char *dir)
{
        f->state = path_printf("%s/state", dir);
        f->run = path_printf("%s/run", dir);
        f->model = calloc(1, SIZE);
        if (!f->state || !f->run || !f->model)
                DIE("no memory");
        for (int i = 0; i < SLOTS; i++) {
                f->slots[i].fsx = f;
                f->slots[i].data = malloc(LARGE + 4096);
                f->slots[i].got = malloc(LARGE + 4096);
                if (!f->slots[i].data || !f->slots[i].got)
                        DIE("no memory");
        }
        start(f);
        prepare(f);
        connect_all(f);
}

static void tear_down(struct fsx *f)
{
        close_all(f);
        stop(f, SIGTERM);
        for (int i = 0; i < SLOTS; i++) {
                free(f->slots[i].data);
                free(f->slots[i].got);
        }
        free(f->model);
        free((char *)f->state);
        free((char *)f->run);
        free((char *)f->socket);
}

static int options(struct fsx *f, int argc, char **argv)
{
        static const struct option longs[] = {
                {"ops", required_argument, NULL, 'o'},   {"long", required_argument, NULL, 'l'},
                {"seed", required_argument, NULL, 's'},  {"restart", required_argument, NULL, 'r'},
                {"every", required_argument, NULL, 'e'}, {}};
        int c;

        while ((c = getopt_long(argc, argv, "", longs, NULL)) >= 0) {
                if (c == 'o')
                        f->ops = strtoull(optarg, NULL, 0);
                else if (c == 'l' && getenv("STRATOFS_LONG"))
                        f->ops = strtoull(optarg, NULL, 0);
                else if (c == 's')
                        f->random = strtoull(optarg, NULL, 0);
                else if (c == 'e')
                        f->every = strtoll(optarg, NULL, 0) * 1000;
                else if (c == 'r')
                        f->restart = streq(optarg, "kill") ? SIGKILL : SIGTERM;
                else if (c != 'l')
                        return -EINVAL;
        }
        f->blockd = argv[optind];
        return f->blockd && f->random ? 0 : -EINVAL;
}

int main(int argc, char **argv)
{
        struct fsx f = {.ops = 20000, .random = (uint64_t)clock_mono() | 1, .every = 1000000};
        char dir[] = "/tmp/fsx.XXXXXX";
        int64_t began = clock_mono();

        if (options(&f, argc, argv) < 0) {
                fprintf(stderr, "usage: fsx BLOCKD [--ops N] [--seed N] [--restart kill|clean] "
                                "[--every MS]\n");
                return 2;
        }
        if (!mkdtemp(dir))
                DIE("%s: %m", dir);
        printf("seed %#llx in %s\n", (unsigned long long)f.random, dir);
        fflush(stdout);
        set_up(&f, dir);
        run(&f);
        compare_all(&f);
        close_all(&f);
        stop(&f, SIGTERM); /* and what a clean stop leaves behind */
        start(&f);
        connect_all(&f);
        compare_all(&f);
        for (int i = 0; i < OPS; i++)
                printf("%s %llu ", names[i], (unsigned long long)f.count[i]);
        printf("settled %llu, %llu restarts, %.1f s\n", (unsigned long long)f.settled,
               (unsigned long long)f.restarts, (clock_mono() - began) / 1e6);
        tear_down(&f);
        return remove_tree(dir, NULL) < 0;
}
