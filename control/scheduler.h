/* The scheduler: on which host a guest is to run.
 *
 * One pure function: it sees figures and names, touches nothing and keeps nothing, so the same
 * question has the same answer on every host.  Filters say which hosts may have the guest, weights
 * which of them is best. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"
#include "common/err.h"

/* What a group asks of its members; soft: if it can be had. */
enum sched_policy {
        SCHED_NO_GROUP,
        SCHED_AFFINITY,
        SCHED_ANTI_AFFINITY,
        SCHED_SOFT_AFFINITY,
        SCHED_SOFT_ANTI_AFFINITY,
};

struct sched_host {
        const char *name;
        const char *zone;            /* "": in none */
        const char *features;        /* words */
        const char *state;           /* its state, for the words */
        bool up;                     /* takes new guests: neither draining nor away */
        uint64_t vcpus, memory;      /* capacity; bytes */
        unsigned vcpus_percent, memory_percent; /* how much of it may be given away: 100 is all */
        uint64_t vcpus_used, memory_used;       /* by guests that are there or on their way */
        unsigned guests;
        unsigned members;            /* of the guest's group, that are there */
};

/* A volume in a local pool binds its guest to the pool's host. */
struct sched_bind {
        const char *host, *volume;
};

struct sched_want {
        uint64_t vcpus, memory;
        const char *zone;            /* "": any */
        const char *features;        /* words, all of which the host must have; "": none */
        const struct sched_bind *binds;
        size_t nbinds;
        enum sched_policy policy;
        unsigned members;            /* of its group, that are on any host */
        bool pack;                   /* fill one host before the next; else spread */
};

enum { SCHED_PERCENT = 100 };

/* Gives the index of the best host, or -ENOSPC when none may have it, with words.  why gets a line
 * a host, the chosen one first: "NAME: chosen, score 1500: memory 700, vcpus 800", "NAME: no: ...".
 * A score is what stays free, in thousandths, of memory and of processors together (with pack: what
 * is used); of equal ones the host with fewer guests, then the first name. */
int sched_place(const struct sched_want *w, const struct sched_host *v, size_t n, struct buf *why,
                struct err **e);
/* What of a capacity may still be given away. */
uint64_t sched_left(uint64_t capacity, unsigned percent, uint64_t used);
/* "soft-affinity"; NULL or "": SCHED_NO_GROUP. */
enum sched_policy sched_policy(const char *text);
