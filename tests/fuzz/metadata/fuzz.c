/* What a guest sends to its metadata service, over a real connection; the first byte says in which
 * pieces.  Of whatever it sends the service must go on, and answer in HTTP or not at all. */
#include "metadata/metadata.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "common/bundle.h"
#include "common/fileio.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static struct service service;
static struct sockaddr_in address = {.sin_family = AF_INET};
static char dir[] = "/dev/shm/fuzz-metadata.XXXXXX";

static void end(void)
{
        remove_tree(dir, NULL);
}

static void *serve(void *arg)
{
        http_serve(&service, arg);
        return NULL;
}

static void begin(void)
{
        static int fds[2] = {-1, -1};
        int fd;
        struct buf b = {};
        socklen_t len = sizeof(address);
        pthread_t t;

        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        fd = fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (!mkdtemp(dir) || chdir(dir) < 0 || mkdir("posted", 0700) < 0 || fd < 0 ||
            bind(fd, (struct sockaddr *)&address, len) < 0 || listen(fd, 16) < 0 ||
            getsockname(fd, (struct sockaddr *)&address, &len) < 0)
                abort();
        atexit(end);
        bundle_add(&b, "openstack/latest/meta_data.json", "{}", 2);
        bundle_add(&b, "latest/meta-data/", "hostname\npublic-keys/", 21);
        bundle_add(&b, "latest/meta-data/hostname", "web", 3);
        bundle_add(&b, "latest/user-data", "#!/bin/sh\n", 10);
        if (file_replace("127.0.0.1", b.data, b.len, 0644, NULL) < 0 ||
            pthread_create(&t, NULL, serve, fds) != 0)
                abort();
        buf_done(&b);
}

static int dial(void)
{
        const struct linger none = {.l_onoff = 1};
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
        if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
                abort(); /* it is there no more */
        return fd;
}

/* The service is one thread: what is answered here was asked behind what others sent.  It closes
 * connections that were silent, which this one is when the fuzzer is slow. */
static void behind(void)
{
        static const char what[] = "PUT /latest/api/token HTTP/1.1\r\nHost: a\r\n\r\n";
        static int fd = -1;
        char text[1024] = "";
        size_t n = 0;

        while (!strstr(text, "1 to 21600\n")) {
                ssize_t r;

                if (fd < 0) {
                        fd = dial();
                        n = 0;
                }
                if (n == 0 && send(fd, what, sizeof(what) - 1, MSG_NOSIGNAL) < 0) {
                        cleanup_close_(&fd);
                        fd = -1;
                        continue;
                }
                r = recv(fd, text + n, sizeof(text) - 1 - n, 0);
                if (r <= 0) {
                        cleanup_close_(&fd);
                        fd = -1;
                        continue;
                }
                n += r;
                text[n] = '\0';
        }
}

static void ask(const uint8_t *p, size_t n, size_t piece)
{
        static char text[1 << 16];
        _cleanup_close_ int fd = dial();
        ssize_t r;

        for (size_t k; n > 0; p += k, n -= k) {
                k = MIN(n, piece);
                if (send(fd, p, k, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)k)
                        break;
        }
        behind();
        behind();
        r = recv(fd, text, sizeof(text), MSG_DONTWAIT);
        if (r >= 5 && memcmp(text, "HTTP/", 5) != 0)
                abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
        static const size_t pieces[] = {1 << 20, 1, 17, 1400};
        char name[PATH_SIZE];
        size_t k;

        if (address.sin_port == 0)
                begin();
        if (n < 1)
                return 0;
        k = strnlen((const char *)p + 1, n - 1);
        if (k < n - 1 && path_canonical((const char *)p + 1, name) && strlen(name) >= PATH_SIZE)
                abort();
        ask(p + 1, n - 1, MAX(pieces[p[0] & 3], n / 64));
        unlink("posted/127.0.0.1");
        return 0;
}
