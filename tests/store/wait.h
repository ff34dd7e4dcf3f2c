/* Transactions that a test waits for. */
#pragma once

#include "control/driver/store.h"

struct waiter {
        pthread_mutex_t lock;
        pthread_cond_t cond;
        int calls; /* of the callback */
        enum store_result result;
        int code; /* of the error, 0 without one */
        char words[512];
        int *order; /* optional: counts the callbacks of a whole test */
        int place;  /* its value at this callback */
};

void waiter_init(struct waiter *w);
void waiter_done(void *arg, enum store_result result, const struct err *err);
void waiter_wait(struct waiter *w);

/* A transaction of one put, built but not committed. */
struct store_txn *txn_of(const char *scope, const char *key, uint64_t expect, uint64_t version,
                         const char *value);
/* Commits and waits. */
enum store_result commit_wait(struct store *s, struct store_txn *t, struct waiter *w);
/* Both at once. */
enum store_result put_wait(struct store *s, const char *scope, const char *key, uint64_t expect,
                           uint64_t version, const char *value);
/* The value of a record, by load (the caller frees); NULL when there is none. */
char *value_of(struct store *s, const char *scope, const char *key, uint64_t *ret_version);
size_t count_records(struct store *s);
