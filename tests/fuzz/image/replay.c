/* Runs a fuzz target on saved inputs: replay FILE...  */
#include <stdint.h>
#include "common/fileio.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int main(int argc, char **argv)
{
        for (int i = 1; i < argc; i++) {
                _cleanup_free_ char *p = NULL;
                size_t n;

                if (file_read(argv[i], 64 << 20, &p, &n, NULL) < 0)
                        return 1;
                LLVMFuzzerTestOneInput((uint8_t *)p, n);
        }
        return argc > 1 ? 0 : 2;
}
