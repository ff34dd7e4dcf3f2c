/* Parses bytes as a volume's metadata. */
#include "backend/volume/local/meta.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
        struct err *e = NULL;
        struct meta m = {};
        int r = meta_parse((const char *)p, n, &m, &e);

        if (r == 0 && (m.nlayers == 0 || meta_find(&m, meta_top(&m)->n) != (int)m.nlayers - 1))
                abort();
        if (r < 0 && !e)
                abort();
        err_free(e);
        meta_done(&m);
        return 0;
}
