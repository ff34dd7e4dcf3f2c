/* An upload: what was written and synced is there; whatever became of it, it can be taken away. */
#include "nth.h"

#include <stdlib.h>

#include "backend/image/image-files.h"

enum { PIECES = 4, LEN = 8192 };

static const char id[] = "00000000-0000-4000-8000-000000000001";

struct acks {
        bool made;
        bool wrote[PIECES], synced[PIECES];
};
const size_t nth_shared = sizeof(struct acks);

static int service(const char *top, struct image_service **ret)
{
        char dir[64];

        snprintf(dir, sizeof(dir), "%s/images", top);
        return image_files_open(dir, ret, NULL);
}

static void upload(struct image_service *s, struct acks *a)
{
        struct image_blob *b;
        char buf[LEN];

        if (s->ops->open(s, id, true, &b, NULL) < 0)
                return;
        for (int i = 0; i < PIECES; i++) {
                memset(buf, 'a' + i, LEN);
                a->wrote[i] = s->ops->pwrite(b, buf, LEN, (uint64_t)i * LEN) == 0;
                if (s->ops->sync(b) == 0)
                        memcpy(a->synced, a->wrote, sizeof(a->synced));
        }
        s->ops->close(b);
}

void nth_work(void *shared, const char *top)
{
        struct acks *a = shared;
        struct image_facts facts;
        struct image_service *s;

        if (service(top, &s) < 0)
                return;
        a->made = s->ops->create(s, id, NULL) == 0;
        if (a->made)
                upload(s, a);
        (void)s->ops->inspect(s, id, "raw", 1ULL << 40, &facts, NULL);
        s->ops->close_service(s);
}

static void holds(struct image_service *s, const struct acks *a)
{
        char buf[LEN], want[LEN];
        struct image_blob *b;

        CHECK(s->ops->open(s, id, false, &b, NULL) == 0);
        for (int i = 0; i < PIECES; i++) {
                memset(want, 'a' + i, LEN);
                CHECK(!a->synced[i] || (s->ops->pread(b, buf, LEN, (uint64_t)i * LEN) == LEN &&
                                        memcmp(buf, want, LEN) == 0));
        }
        s->ops->close(b);
}

void nth_check(const void *shared, const char *top)
{
        const struct acks *a = shared;
        struct image_service *s;

        CHECK(service(top, &s) == 0);
        if (a->made)
                holds(s, a);
        CHECK(s->ops->remove(s, id, NULL) == 0);
        CHECK(s->ops->create(s, id, NULL) == 0);
        s->ops->close_service(s);
}
