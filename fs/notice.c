/* inotify for what the cloud itself changes: which files stratofs-watch is to touch.
 *
 * A change is only queued by who made it.  A thread of its own asks the helper which inodes are
 * watched, at most once a second and only when something changed, and names it the files; it makes
 * no request to the mount, and nobody waits for it.  A helper that does not answer in time is
 * ended, and another is started later. */
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "common/log.h"
#include "fs/notice.h"
#include "fs/ops.h"

enum { QUEUED_MAX = 4096, SCAN_US = 1000000, PATIENCE_S = 5, RESPAWN_US = 10000000 };
enum { SAME_TIME_US = 2000000 }; /* a state as old as this at its change did not change with it */

struct notice {
        uint64_t no, owner;
        const struct kind *kind;
        int64_t at; /* usec */
};

struct notices {
        struct fs *fs;
        char *program;
        pthread_mutex_t lock; /* what follows */
        pthread_cond_t cond;
        struct notice queue[QUEUED_MAX]; /* what comes when it is full is not told */
        size_t n;
        bool stopping;
        int socket; /* -1: no helper */
        pid_t helper;
        /* the thread's own */
        pthread_t thread;
        bool started;
        int64_t scanned, spawned; /* monotonic usec */
        uint64_t watched[WATCHED_MAX + 1];
        size_t nwatched;
        struct notice batch[QUEUED_MAX];
        struct buf told; /* the batch's paths, a line each: once is enough */
};

void notices_changed(struct fs *fs, const struct change *ch)
{
        struct notices *s = fs->notices;

        if (!s)
                return;
        WITH_LOCK(&s->lock);
        if (s->n == QUEUED_MAX)
                return;
        s->queue[s->n++] = (struct notice){ch->no, ch->owner, ch->kind, clock_now()};
        if (s->n == 1)
                pthread_cond_signal(&s->cond);
}

/* --- the helper ------------------------------------------------------------------------------ */

static int spawn_helper(struct notices *s)
{
        struct timeval patience = {.tv_sec = PATIENCE_S};
        char *argv[] = {s->program, s->fs->mountpoint, NULL};
        posix_spawn_file_actions_t actions;
        int pair[2], r;

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return -errno;
        setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
        setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, pair[1], STDIN_FILENO);
        pthread_mutex_lock(&s->lock);
        r = s->stopping ? ECANCELED
                        : posix_spawn(&s->helper, s->program, &actions, NULL, argv, environ);
        s->socket = r ? -1 : pair[0];
        pthread_mutex_unlock(&s->lock);
        posix_spawn_file_actions_destroy(&actions);
        close(pair[1]);
        if (r)
                close(pair[0]);
        return -r;
}

static void end_helper(struct notices *s)
{
        pthread_mutex_lock(&s->lock);
        if (s->socket >= 0) {
                close(s->socket);
                kill(s->helper, SIGKILL);
        }
        s->socket = -1;
        pthread_mutex_unlock(&s->lock);
        if (s->helper > 0 && waitpid(s->helper, NULL, WNOHANG) != 0)
                s->helper = 0; /* one that is stuck in the mount is reaped later */
}

/* Which inodes are watched; -errno when there is no helper to ask. */
static int scan(struct notices *s)
{
        int64_t now = clock_mono();
        ssize_t n;
        int r;

        if (s->socket < 0) {
                if (s->helper > 0)
                        end_helper(s);
                if (s->helper > 0 || (s->spawned && now - s->spawned < RESPAWN_US))
                        return -EAGAIN;
                s->spawned = now;
                r = spawn_helper(s);
                if (r < 0)
                        return r;
        }
        n = send(s->socket, "?", 1, MSG_NOSIGNAL);
        if (n > 0)
                n = recv(s->socket, s->watched, sizeof(s->watched), 0);
        if (n < (ssize_t)sizeof(*s->watched)) {
                end_helper(s);
                return -EPIPE;
        }
        s->nwatched = (size_t)n / sizeof(*s->watched) - 1;
        s->scanned = clock_mono();
        return 0;
}

/* --- which files ----------------------------------------------------------------------------- */

static bool is_watched(const struct notices *s, fuse_ino_t ino)
{
        for (size_t i = 0; i < s->nwatched; i++)
                if (s->watched[i] == ino)
                        return true;
        return false;
}

/* Read lock held. */
static void add_path(struct notices *s, fuse_ino_t ino, int64_t at)
{
        _cleanup_buf_ struct buf path = {};
        const char *seen;
        struct node n;
        struct stat st;

        if (node_get(s->fs, ino, &n) < 0)
                return;
        node_stat(s->fs, &n, &st);
        if (!S_ISREG(st.st_mode) || (n.type == NODE_STATE && n.o->state_since < at - SAME_TIME_US))
                return;
        node_path(s->fs, &n, &path);
        buf_addc(&path, '\n');
        seen = path.failed ? NULL : strstr(buf_str(&s->told), buf_str(&path));
        if (!path.failed && (!seen || (seen > s->told.data && seen[-1] != '\n')))
                buf_addstr(&s->told, buf_str(&path));
}

/* A file that only the cloud writes: what a user writes the kernel tells by itself. */
static bool only_ours(struct notices *s, fuse_ino_t ino)
{
        struct node n;
        struct stat st;

        if (node_get(s->fs, ino, &n) < 0)
                return false;
        node_stat(s->fs, &n, &st);
        return !(st.st_mode & 0222);
}

static void add_files(struct notices *s, const struct notice *c)
{
        fuse_ino_t list = ino_collection(c->owner, c->kind, PART_INDEX);

        control_rdlock(s->fs->control);
        for (size_t i = 0; i < s->nwatched; i++)
                if (s->watched[i] >> SLOT_BITS == c->no && only_ours(s, s->watched[i]))
                        add_path(s, s->watched[i], c->at);
        if (is_watched(s, ino_object(c->no))) {
                add_path(s, INO_OF(c->no, SLOT_STATE), c->at);
                add_path(s, INO_OF(c->no, SLOT_EVENTS), c->at);
        }
        if (is_watched(s, list) || is_watched(s, ino_collection(c->owner, c->kind, PART_DIR)))
                add_path(s, list, c->at);
        if (is_watched(s, INO_OF(c->owner, SLOT_EVENTS)) || is_watched(s, ino_object(c->owner)))
                add_path(s, INO_OF(c->owner, SLOT_EVENTS), c->at);
        control_unlock(s->fs->control);
}

static void tell(struct notices *s, size_t n)
{
        char *save = NULL;

        if (s->nwatched == 0)
                return;
        buf_clear(&s->told);
        for (size_t i = 0; i < n; i++)
                add_files(s, &s->batch[i]);
        if (!s->told.len || s->told.failed)
                return;
        for (char *p = strtok_r(s->told.data, "\n", &save); p; p = strtok_r(NULL, "\n", &save))
                if (send(s->socket, p, strlen(p), MSG_NOSIGNAL) < 0) {
                        log_warning("stratofs-watch: %m: inotify is silent for a while");
                        end_helper(s);
                        return;
                }
}

/* --- the thread ------------------------------------------------------------------------------ */

static void *notices_main(void *arg)
{
        struct notices *s = arg;
        size_t n;

        pthread_mutex_lock(&s->lock);
        while (!s->stopping) {
                int64_t due = s->scanned ? s->scanned + SCAN_US : 0;
                struct timespec until = clock_timespec(due);

                if (s->n == 0) {
                        pthread_cond_wait(&s->cond, &s->lock);
                        continue;
                }
                /* Who began to watch since the last look is told, too: so we look first. */
                if (clock_mono() < due) {
                        pthread_cond_timedwait(&s->cond, &s->lock, &until);
                        continue;
                }
                n = s->n;
                memcpy(s->batch, s->queue, n * sizeof(*s->batch));
                s->n = 0;
                pthread_mutex_unlock(&s->lock);
                if (scan(s) == 0)
                        tell(s, n);
                else
                        s->scanned = clock_mono();
                pthread_mutex_lock(&s->lock);
        }
        pthread_mutex_unlock(&s->lock);
        return NULL;
}

int notices_new(struct fs *fs, const char *program)
{
        pthread_condattr_t attr;
        struct notices *s;

        if (!program)
                return 0;
        s = calloc(1, sizeof(*s));
        if (!s)
                return -ENOMEM;
        s->fs = fs;
        s->socket = -1;
        s->program = strdup(program);
        pthread_mutex_init(&s->lock, NULL);
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_cond_init(&s->cond, &attr);
        pthread_condattr_destroy(&attr);
        s->started = s->program && pthread_create(&s->thread, NULL, notices_main, s) == 0;
        fs->notices = s;
        return s->started ? 0 : -ENOMEM;
}

void notices_free(struct fs *fs)
{
        struct notices *s = TAKE_PTR(fs->notices);

        if (!s)
                return;
        pthread_mutex_lock(&s->lock);
        s->stopping = true;
        pthread_cond_signal(&s->cond);
        if (s->socket >= 0) {
                shutdown(s->socket, SHUT_RDWR);
                kill(s->helper, SIGKILL);
        }
        pthread_mutex_unlock(&s->lock);
        if (s->started)
                pthread_join(s->thread, NULL);
        end_helper(s);
        if (s->helper > 0)
                waitpid(s->helper, NULL, 0);
        buf_done(&s->told);
        pthread_cond_destroy(&s->cond);
        pthread_mutex_destroy(&s->lock);
        free(s->program);
        free(s);
}
