/* waiters N FILE...: N threads, each with one read of one of the files, all at once; says "parked"
 * when all are in the kernel, and what came of them when they end: "ended N". */
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

static atomic_int begun, ended, failed;

static void *reader(void *arg)
{
        char line[4096];
        int fd = open(arg, O_RDONLY);

        atomic_fetch_add(&begun, 1);
        if (fd < 0 || read(fd, line, sizeof(line)) <= 0)
                atomic_fetch_add(&failed, 1);
        atomic_fetch_add(&ended, 1);
        if (fd >= 0)
                close(fd);
        return NULL;
}

int main(int argc, char **argv)
{
        int n = argc > 2 ? atoi(argv[1]) : 0;
        pthread_t *threads = calloc(n > 0 ? (size_t)n : 1, sizeof(*threads));
        struct rlimit files = {1 << 16, 1 << 16};
        pthread_attr_t small;

        if (!threads || n < 1)
                return 2;
        (void)setrlimit(RLIMIT_NOFILE, &files);
        pthread_attr_init(&small);
        pthread_attr_setstacksize(&small, 32 << 10);
        for (int i = 0; i < n; i++)
                if (pthread_create(&threads[i], &small, reader, argv[2 + i % (argc - 2)]) != 0) {
                        fprintf(stderr, "thread %d of %d\n", i, n);
                        return 1;
                }
        while (atomic_load(&begun) < n)
                usleep(1000);
        puts("parked");
        fflush(stdout);
        for (int i = 0; i < n; i++)
                pthread_join(threads[i], NULL);
        printf("ended %d failed %d\n", atomic_load(&ended), atomic_load(&failed));
        free(threads);
        return 0;
}
