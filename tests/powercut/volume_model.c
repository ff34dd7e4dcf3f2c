/* What the guest may expect of its volumes. */
#include "volume.h"

#include <string.h>

void sector_fill(uint8_t *p, uint32_t id, uint32_t sector)
{
        uint64_t word = id ? (uint64_t)id << 24 | sector : 0;

        for (size_t i = 0; i < SECTOR; i += 8)
                memcpy(p + i, &word, 8);
}

uint32_t sector_id(const uint8_t *p, uint32_t sector)
{
        uint64_t word;

        memcpy(&word, p, 8);
        if (memcmp(p, p + 8, SECTOR - 8) != 0 || (word && (word & 0xffffff) != sector))
                return NONE;
        return word >> 24;
}

static void sector_set(struct sector *s, uint32_t id)
{
        for (uint32_t i = 0; i < s->n; i++)
                if (s->was[i] == s->now)
                        goto known;
        CHECK(s->n < PENDING, "a sector was written too often without a flush");
        s->was[s->n++] = s->now;
known:
        s->now = id;
}

static void facts(struct vol *v, const struct event *ev)
{
        v->immutable = ev->child;
        v->size = ev->off;
        v->or_size = ev->len;
}

void volume_apply(void *arg, const struct event *ev)
{
        struct model *m = arg;
        struct vol *v = ev->vol == NONE ? NULL : &m->v[ev->vol];

        switch (ev->kind) {
        case EV_STATE:
                v->there = ev->child;
                break;
        case EV_FACTS:
                facts(v, ev);
                break;
        case EV_SECTORS:
                for (uint64_t i = ev->off; i < ev->off + ev->len; i++)
                        sector_set(&v->s[i], ev->child);
                break;
        case EV_SETTLED:
                for (uint64_t i = ev->off; i < ev->off + ev->len; i++)
                        v->s[i].now = ev->child;
                break;
        case EV_FLUSHED:
                for (uint64_t i = ev->off; i < ev->off + ev->len; i++)
                        v->s[i].n = 0;
                break;
        case EV_COPY:
                for (uint64_t i = 0; i < SECTORS; i++)
                        v->s[i] = (struct sector){.now = m->v[ev->child].s[i].now};
                break;
        default:
                break;
        }
}
