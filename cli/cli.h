/* strato: what its verbs share.
 *
 * A verb is one function in a file of its own.  It prints its results on stdout and returns an
 * exit status; what stops it is an error, printed by main() once. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"

/* Exit statuses, documented in doc/strato.1.rst. */
enum {
        STATUS_OK = 0,
        STATUS_FAILED = 1,
        STATUS_USAGE = 2,
        STATUS_DOWN = 3,   /* nothing runs */
        STATUS_PARTLY = 4, /* some of it runs */
        STATUS_TIMEOUT = 124,
};

/* The command line, and the places that follow from it.  All paths are absolute. */
struct cloud {
        char *mount, *state, *run;
        char *conf;           /* NULL: none */
        const char *loglevel; /* NULL: the daemons' own default */
        bool json, guests, force, fsck, once, prune, replace;
        int timeout; /* seconds; -1 when not given */
        char **words;
        int nwords; /* arguments that are no options */
};

struct verb {
        const char *name;
        const char *synopsis;
        const char *help;    /* one line; NULL: not shown */
        const char *options; /* names of the options it knows, each between spaces */
        int min_words, max_words;
        /* An exit status, or -errno with words. */
        int (*run)(struct cloud *c, struct err **e);
};

extern const struct verb verbs[]; /* ends with a NULL name */

int verb_up(struct cloud *c, struct err **e);
int verb_down(struct cloud *c, struct err **e);
int verb_status(struct cloud *c, struct err **e);
int verb_wait(struct cloud *c, struct err **e);
int verb_apply(struct cloud *c, struct err **e);
int verb_diff(struct cloud *c, struct err **e);
int verb_ctl(struct cloud *c, struct err **e);
int verb_new(struct cloud *c, struct err **e);
int verb_tour(struct cloud *c, struct err **e);
int verb_doctor(struct cloud *c, struct err **e);
int verb_console(struct cloud *c, struct err **e);
int verb_top(struct cloud *c, struct err **e);
int verb_migrate_store(struct cloud *c, struct err **e);
int verb_serve(struct cloud *c, struct err **e);

/* Reads argv[1..] for verb v into c.  0; 1 when --help was printed; -EINVAL with words. */
int options_parse(const struct verb *v, int argc, char **argv, struct cloud *c, struct err **e);
void cloud_done(struct cloud *c);

/* Prints what may stand for the last of the words behind `strato`, for the shells' completion. */
int complete(int argc, char **argv);
/* The whole of strato; the exit status. */
int strato_main(int argc, char **argv);
