/* The rates of a tree's calls, for bench-mount.
 *
 *     bench-tree stat|open PATH SECONDS     calls a second on one path, warm
 *     bench-tree readdir FOLDER ROUNDS      milliseconds of the fastest listing; and how many names
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void once(const char *what, const char *path)
{
        struct stat st;
        char text[4096];
        int fd;

        if (!strcmp(what, "stat")) {
                if (stat(path, &st) < 0)
                        exit(1);
                return;
        }
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || read(fd, text, sizeof(text)) < 0)
                exit(1);
        close(fd);
}

static unsigned list(const char *path)
{
        DIR *d = opendir(path);
        unsigned n = 0;

        if (!d)
                exit(1);
        while (readdir(d))
                n++;
        closedir(d);
        return n;
}

int main(int argc, char **argv)
{
        double begin, best = 1e9;
        unsigned long calls = 0, names = 0;

        if (argc != 4)
                return 2;
        if (!strcmp(argv[1], "readdir")) {
                for (int i = 0; i < atoi(argv[3]); i++) {
                        begin = now();
                        names = list(argv[2]);
                        best = now() - begin < best ? now() - begin : best;
                }
                printf("%.2f %lu\n", best * 1e3, names);
                return 0;
        }
        once(argv[1], argv[2]);
        begin = now();
        do {
                for (int i = 0; i < 100; i++)
                        once(argv[1], argv[2]);
                calls += 100;
        } while (now() - begin < atof(argv[3]));
        printf("%.0f\n", (double)calls / (now() - begin));
        return 0;
}
