/* Runs a fuzz target over the files and folders named, without a fuzzer: saved inputs are tests. */
#include <dirent.h>
#include <sys/stat.h>

#include "common/fileio.h"
#include "fuzz.h"

static int files;

static int run_file(const char *path)
{
        _cleanup_err_ struct err *e = NULL;
        char *text;
        size_t n;

        if (file_read(path, 1 << 24, &text, &n, &e) < 0) {
                fprintf(stderr, "%s\n", err_msg(e));
                return 1;
        }
        LLVMFuzzerTestOneInput((const uint8_t *)text, n);
        free(text);
        files++;
        return 0;
}

static int run_path(const char *path)
{
        DIR *d = opendir(path);
        struct dirent *de;
        int bad = 0;

        if (!d)
                return run_file(path);
        while ((de = readdir(d)))
                if (de->d_name[0] != '.') {
                        _cleanup_free_ char *below = path_printf("%s/%s", path, de->d_name);

                        bad += run_file(below);
                }
        closedir(d);
        return bad;
}

int main(int argc, char **argv)
{
        int bad = 0;

        for (int i = 1; i < argc; i++)
                bad += run_path(argv[i]);
        printf("%d inputs\n", files);
        return bad || !files;
}
