/* Readers, writers and changes made inside the daemon, on 16 threads, on a few volumes.
 *
 *     stress FOLDER SOCKET SECONDS
 *
 * FOLDER is a tenant's `volumes`, SOCKET the backdoor.  Every volume has a lock of this program's:
 * who holds it for writing makes one change and has it acknowledged; whoever reads after that must
 * find it: in stat, in the listing, under the new name and not under the old one.  Others look on
 * without a lock, so that answers are under way while things change.  It ends by SIGALRM when
 * nothing moves. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { VOLUMES = 6, WRITERS = 4, DAEMONS = 4, READERS = 4, ONLOOKERS = 4 };

static struct volume {
        pthread_rwlock_t lock;
        bool there;
        unsigned name;    /* it is called <letter><name>, the other one is free */
        size_t len;       /* of its description, with the newline */
        const char *last; /* change */
        long long seen;   /* nsec: its directory's time after the last change */
} volumes[VOLUMES];
static const char *folder, *backdoor;
static atomic_bool over;
static atomic_ulong changes, looks;

__attribute__((format(printf, 1, 2))) static void stale(const char *fmt, ...)
{
        va_list ap;

        va_start(ap, fmt);
        fprintf(stderr, "stale: ");
        vfprintf(stderr, fmt, ap);
        fprintf(stderr, "\n");
        _exit(1);
}

static char *path_of(char out[300], unsigned i, unsigned name, const char *file)
{
        snprintf(out, 300, "%s/%c%u%s", folder, 'a' + (char)i, name, file);
        return out;
}

__attribute__((format(printf, 2, 3))) static int ask(int fd, const char *fmt, ...)
{
        char line[400];
        va_list ap;
        int n;

        va_start(ap, fmt);
        n = vsnprintf(line, sizeof(line), fmt, ap);
        va_end(ap);
        if (write(fd, line, (size_t)n) != n)
                stale("the daemon does not listen");
        for (n = 0; n < (int)sizeof(line) - 1 && (!n || line[n - 1] != '\n'); n++)
                if (read(fd, line + n, 1) != 1)
                        stale("the daemon does not answer");
        line[n] = 0;
        return atoi(line);
}

static int put(const char *path, const char *text, size_t n)
{
        int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC), r = 0;

        if (fd < 0 || write(fd, text, n) != (ssize_t)n)
                r = errno;
        if (fd >= 0)
                close(fd);
        return r;
}

/* One change; fd: through the backdoor, -1: through the mount. */
static void change(unsigned i, int fd, unsigned *seed)
{
        struct volume *v = &volumes[i];
        unsigned what = (unsigned)rand_r(seed) % 8, other = v->name ^ 1;
        char a[300], b[300], text[256];
        int r;

        if (!v->there) {
                r = fd >= 0 ? ask(fd, "create %c%u\n", 'a' + i, v->name)
                            : (mkdir(path_of(a, i, v->name, ""), 0777) < 0 ? errno : 0);
                v->there = true;
                v->len = 1;
        } else if (what == 0) {
                r = fd >= 0 ? ask(fd, "delete %c%u\n", 'a' + i, v->name)
                            : (rmdir(path_of(a, i, v->name, "")) < 0 ? errno : 0);
                v->there = false;
        } else if (what == 1) {
                r = fd >= 0 ? ask(fd, "rename %c%u %c%u\n", 'a' + i, v->name, 'a' + i, other)
                            : (rename(path_of(a, i, v->name, ""), path_of(b, i, other, "")) < 0
                                       ? errno
                                       : 0);
                v->name = other;
        } else {
                v->len = 2 + (v->len + (size_t)rand_r(seed) % 99) % 200; /* another length */
                memset(text, 'x', v->len - 1);
                text[v->len - 1] = '\n';
                r = fd >= 0 ? ask(fd, "describe %c%u %.*s", 'a' + i, v->name, (int)v->len, text)
                            : put(path_of(a, i, v->name, "/description"), text, v->len);
        }
        if (r)
                stale("change %u of %c%u, %s: %s", what, 'a' + i, v->name,
                      fd >= 0 ? "in the daemon" : "through the mount", strerror(r));
        v->last = !v->there ? "deleted" : what == 1 ? "renamed" : "written or made";
        changes++;
}

static long long nsec(struct timespec t)
{
        return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void check_listing(unsigned i, const struct volume *v)
{
        DIR *d = opendir(folder);
        char name[8], other[8];
        bool found = false;

        if (!d)
                stale("%s: %s", folder, strerror(errno));
        snprintf(name, sizeof(name), "%c%u", 'a' + (char)i, v->name);
        snprintf(other, sizeof(other), "%c%u", 'a' + (char)i, v->name ^ 1);
        for (struct dirent *e; (e = readdir(d));) {
                found |= !strcmp(e->d_name, name);
                if (!strcmp(e->d_name, other))
                        stale("%s is listed and called %s now", other, name);
        }
        closedir(d);
        if (found != v->there)
                stale("%s is %slisted", name, found ? "" : "not ");
}

/* Held for reading or writing. */
static void check(unsigned i, bool listing)
{
        const struct volume *v = &volumes[i];
        struct stat st;
        char p[300];
        int r = stat(path_of(p, i, v->name ^ 1, ""), &st);

        if (r == 0 || errno != ENOENT)
                stale("%s, which nothing is called: %s; %s last", p, r ? strerror(errno) : "there",
                      v->last);
        r = stat(path_of(p, i, v->name, ""), &st);
        if ((r == 0) != v->there || (r && errno != ENOENT))
                stale("%s: %s", p, r ? strerror(errno) : "there");
        if (v->there && nsec(st.st_mtim) < v->seen)
                stale("%s: its time went back", p);
        r = stat(path_of(p, i, v->name, "/description"), &st);
        if ((r == 0) != v->there || (r && errno != ENOENT))
                stale("%s: %s", p, r ? strerror(errno) : "there");
        if (v->there && (size_t)st.st_size != v->len)
                stale("%s: %lld bytes, not %zu", p, (long long)st.st_size, v->len);
        if (listing)
                check_listing(i, v);
        looks++;
}

static void *changer(void *arg)
{
        unsigned seed = (unsigned)(size_t)arg;
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        int fd = -1;

        snprintf(a.sun_path, sizeof(a.sun_path), "%s", backdoor);
        if (seed < DAEMONS) {
                fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
                if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
                        stale("%s: %s", backdoor, strerror(errno));
        }
        while (!over) {
                unsigned i = (unsigned)rand_r(&seed) % VOLUMES;
                struct volume *v = &volumes[i];
                struct stat before, after;
                char p[300];
                int r;

                pthread_rwlock_wrlock(&v->lock);
                r = stat(path_of(p, i, v->name, ""), &before);
                change(i, fd, &seed);
                check(i, rand_r(&seed) % 4 == 0);
                v->seen = 0;
                if (v->there && stat(path_of(p, i, v->name, ""), &after) == 0) {
                        v->seen = nsec(after.st_mtim);
                        if (r == 0 && before.st_ino == after.st_ino &&
                            nsec(before.st_mtim) == v->seen)
                                stale("%s: changed, and its time did not", p);
                }
                pthread_rwlock_unlock(&v->lock);
        }
        return NULL;
}

static void *reader(void *arg)
{
        unsigned seed = 100 + (unsigned)(size_t)arg;

        while (!over) {
                unsigned i = (unsigned)rand_r(&seed) % VOLUMES;

                pthread_rwlock_rdlock(&volumes[i].lock);
                check(i, rand_r(&seed) % 4 == 0);
                pthread_rwlock_unlock(&volumes[i].lock);
        }
        return NULL;
}

static void *onlooker(void *arg)
{
        unsigned seed = 200 + (unsigned)(size_t)arg;
        struct stat st;
        char p[300], text[300];

        while (!over) {
                unsigned i = (unsigned)rand_r(&seed) % VOLUMES, name = (unsigned)rand_r(&seed) % 2;
                DIR *d = opendir(folder);
                int fd;

                for (struct dirent *e; d && (e = readdir(d));)
                        fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW);
                if (d)
                        closedir(d);
                stat(path_of(p, i, name, "/description"), &st);
                fd = open(p, O_RDONLY | O_CLOEXEC);
                if (fd >= 0 && read(fd, text, sizeof(text)) < 0 && errno != ENOENT &&
                    errno != ESTALE)
                        stale("read %s: %s", p, strerror(errno));
                if (fd >= 0)
                        close(fd);
        }
        return NULL;
}

int main(int argc, char **argv)
{
        static void *(*const work[])(void *) = {changer, reader, onlooker};
        static const unsigned count[] = {WRITERS + DAEMONS, READERS, ONLOOKERS};
        pthread_t threads[WRITERS + DAEMONS + READERS + ONLOOKERS];
        unsigned n = 0;

        if (argc != 4)
                return 2;
        folder = argv[1];
        backdoor = argv[2];
        alarm((unsigned)atoi(argv[3]) + 60);
        for (unsigned i = 0; i < VOLUMES; i++)
                pthread_rwlock_init(&volumes[i].lock, NULL);
        for (unsigned w = 0; w < 3; w++)
                for (unsigned i = 0; i < count[w]; i++)
                        if (pthread_create(&threads[n++], NULL, work[w], (void *)(size_t)i) != 0)
                                return 2;
        sleep((unsigned)atoi(argv[3]));
        over = true;
        while (n)
                pthread_join(threads[--n], NULL);
        printf("%lu changes, %lu looks\n", changes, looks);
        return changes > 100 && looks > 100 ? 0 : 1;
}
