/* Feeds lines to the control socket's parser, over the null driver. */
#include <sys/epoll.h>

#include "blockd/server.h"
#include "common/fileio.h"
#include "common/log.h"
#include "fuzz.h"

static struct server *server; /* one for all inputs: making it is slow */
static char dir[] = "/dev/shm/fuzz-control.XXXXXX";

static void remove_dir(void)
{
        remove_tree(dir, NULL);
}

static void start(void)
{
        log_set_level(LOG_EMERG);
        server = calloc(1, sizeof(*server));
        if (!server || !mkdtemp(dir))
                abort();
        atexit(remove_dir);
        server->state = path_printf("%s/state", dir);
        server->run = path_printf("%s/run", dir);
        server->next_serial = LISTEN_EXPORTS;
        pthread_mutex_init(&server->change, NULL);
        pthread_mutex_init(&server->lock, NULL);
        pthread_cond_init(&server->gone, NULL);
        server->epfd = epoll_create1(EPOLL_CLOEXEC);
        if (volume_pool_open(&volume_driver_null, NULL, &server->pool, NULL) < 0 ||
            exports_restore(server, NULL) < 0)
                abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
        if (!server)
                start();
        while (n > 0) {
                const uint8_t *nl = memchr(p, '\n', n);
                size_t k = nl ? (size_t)(nl - p) : n;
                char *answer = control_line(server, (const char *)p, k);

                if (!answer || strchr(answer, '\n'))
                        abort();
                free(answer);
                k += nl != NULL;
                p += k;
                n -= k;
        }
        return 0;
}
