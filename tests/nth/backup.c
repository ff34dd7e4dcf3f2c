/* A backup store: a backup that was acknowledged is whole, one that was not is whole or not there,
 * and the next one succeeds. */
#include "nth.h"

#include <stdlib.h>

#include "backend/backup/backup.h"
#include "backend/backup/manifest.h"

enum { CHUNKS = 3, LEN = 4096, SIZE = CHUNKS * LEN };

static const char *const ids[] = {"00000000-0000-4000-8000-000000000001",
                                  "00000000-0000-4000-8000-000000000002"};

struct acks {
        bool taken[2];
};
const size_t nth_shared = sizeof(struct acks);

static void fill(char *buf, unsigned b, unsigned i)
{
        memset(buf, i == 1 ? 0 : 'a' + (int)(b * 8 + i), LEN);
}

static int take(const char *dir, unsigned b)
{
        _cleanup_store_ struct store s = STORE_NONE;
        _cleanup_manifest_ struct manifest m = {};
        char buf[LEN];
        int r = store_check(dir, true, NULL);

        if (r == 0)
                r = store_open(dir, false, &s, NULL);
        m.size = SIZE;
        m.chunk_size = LEN;
        m.nchunks = CHUNKS;
        m.chunks = calloc(CHUNKS, sizeof(*m.chunks));
        if (r == 0 && !m.chunks)
                r = -ENOMEM;
        for (unsigned i = 0; r == 0 && i < CHUNKS; i++) {
                fill(buf, b, i);
                r = store_put(&s, buf, sizeof(buf), &m.chunks[i], NULL);
        }
        if (r == 0)
                r = store_sync(&s, NULL);
        strcpy(m.id, ids[b]);
        strcpy(m.created, "now");
        return r < 0 ? r : manifest_write(&s, &m, NULL);
}

static int read_back(const char *dir, unsigned b)
{
        _cleanup_store_ struct store s = STORE_NONE;
        _cleanup_manifest_ struct manifest m = {};
        char buf[LEN], want[LEN];
        int r = store_open(dir, false, &s, NULL);

        if (r == 0)
                r = manifest_read(&s, ids[b], &m, NULL);
        for (unsigned i = 0; r == 0 && i < m.nchunks; i++) {
                fill(want, b, i);
                r = store_get(&s, &m.chunks[i], buf, sizeof(buf), NULL);
                CHECK(r < 0 || memcmp(buf, want, sizeof(buf)) == 0);
        }
        return r;
}

void nth_work(void *shared, const char *top)
{
        struct acks *a = shared;
        char dir[64];

        snprintf(dir, sizeof(dir), "%s/store", top);
        for (unsigned b = 0; b < 2; b++) {
                a->taken[b] = take(dir, b) == 0;
                if (a->taken[b])
                        (void)read_back(dir, b); /* fails, or has the right bytes */
        }
}

void nth_check(const void *shared, const char *top)
{
        const struct acks *a = shared;
        struct backup_service *service;
        char dir[64];

        snprintf(dir, sizeof(dir), "%s/store", top);
        service = backup_files_new(dir);
        CHECK(service);
        for (unsigned b = 0; b < 2; b++) {
                int r = read_back(dir, b);

                CHECK(r == 0 || (!a->taken[b] && r == -ENOENT));
                CHECK(r == 0 || take(dir, b) == 0);
                CHECK(read_back(dir, b) == 0);
        }
        CHECK(service->ops->remove(service, "", ids[0], NULL) == 0);
        CHECK(service->ops->sweep(service, "", NULL) == 0);
        CHECK(read_back(dir, 1) == 0);
        service->ops->close(service);
}
