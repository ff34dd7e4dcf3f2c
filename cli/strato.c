/* strato VERB ...: finds the verb, prints what stopped it. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/places.h"
#include "common/macro.h"

const struct verb verbs[] = {
        {"up", "[--mount DIR] [--state DIR] [--conf FILE] [--loglevel LEVEL] [--replace]",
         "Starts the cloud, or what is missing of it, and returns when the mount answers.",
         "mount state conf loglevel replace timeout json", 0, 0, verb_up},
        {"down", "[--guests] [--force]",
         "Unmounts and stops the daemons; guests go on unless --guests.",
         "mount state guests force timeout json", 0, 0, verb_down},
        {"status", "[--json]", "What runs: exit status 0 all, 3 nothing, 4 a part.",
         "mount state json", 0, 0, verb_status},
        {"wait", "PATH STATE [--timeout SECONDS]",
         "Waits until the object at PATH is in STATE: exit status 0; 1 it ended elsewhere; 124.",
         "mount state timeout json", 2, 2, verb_wait},
        {"ctl", "OBJECT VERB [ARGUMENT]", "Writes a verb to the object's ctl, and says why not.",
         "mount state", 2, 16, verb_ctl},
        {"new", "COLLECTION NAME [KEY=VALUE]...",
         "Makes an object, prints its name and id; KEY.NAME=VALUE of a map.", "mount state", 2, 200,
         verb_new},
        {"apply", "FILE... [--prune]",
         "Makes a tenant what JSON or YAML files describe: prints each change; 1 if one failed.",
         "mount state prune timeout", 1, 1000, verb_apply},
        {"diff", "FILE... [--prune]",
         "Prints what apply would do, and does nothing: 0 nothing, 1 something.",
         "mount state prune", 1, 1000, verb_diff},
        {"console", "INSTANCE", "A terminal on a running guest's serial console; ^] leaves.",
         "mount state", 1, 1, verb_console},
        {"tour", "[TENANT]", "Two minutes with a running cloud; cleans up after itself.",
         "mount state", 0, 1, verb_tour},
        {"doctor", "[CHECK]... [--fsck] [--json]",
         "Tries whether this host can mount, serve and boot.", "mount state fsck json timeout", 0,
         16, verb_doctor},
        {"top", "[--once | --json]", "Hosts, guests, volumes and jobs, live.",
         "mount state once json", 0, 0, verb_top},
        {"migrate-store", "--conf FILE [--state DIR]",
         "Moves the store of a cloud that is down to where FILE says.", "mount state conf", 0, 0,
         verb_migrate_store},
        {"serve", "blockd|stratod [--mount DIR] [--state DIR]",
         "Becomes a daemon in the foreground, for systemd.", "mount state conf loglevel", 1, 1,
         verb_serve},
        {},
};

static void usage(FILE *f)
{
        fputs("usage: strato VERB [OPTION]...\n\n", f);
        for (const struct verb *v = verbs; v->name; v++)
                fprintf(f, "  %-14s%s\n", v->name, v->help);
        fputs("\nstrato VERB --help tells more.\n", f);
}

/* The words, the refused text with a caret under the bad part, what would be right. */
static void print_error(const char *verb, int code, const struct err *e)
{
        fprintf(stderr, "strato %s: %s\n", verb, e ? err_msg(e) : strerror(-code));
        if (e && e->input) {
                fprintf(stderr, "  %s\n  %*s", e->input, (int)e->at, "");
                for (size_t i = 0; i < MAX(e->len, (size_t)1); i++)
                        fputc('^', stderr);
                fputc('\n', stderr);
        }
        if (e && e->hint)
                fprintf(stderr, "  try: %s\n", e->hint);
}

static int status_of(int code)
{
        switch (code) {
        case -EINVAL:
                return STATUS_USAGE;
        case -ENOTCONN:
                return STATUS_DOWN;
        default:
                return STATUS_FAILED;
        }
}

static int run_verb(const struct verb *v, int argc, char **argv)
{
        _cleanup_(cloud_done) struct cloud c = {};
        _cleanup_err_ struct err *e = NULL;
        int r;

        r = options_parse(v, argc, argv, &c, &e);
        if (r > 0)
                return STATUS_OK;
        if (r == 0)
                r = places_fill(&c, &e);
        if (r == 0)
                r = v->run(&c, &e);
        if (r < 0) {
                fflush(stdout);
                print_error(v->name, r, e);
                return status_of(r);
        }
        return r;
}

int strato_main(int argc, char **argv)
{
        const char *word = argc > 1 ? argv[1] : "";

        if (streq(word, "--help") || streq(word, "-h") || streq(word, "help")) {
                usage(stdout);
                return STATUS_OK;
        }
        if (streq(word, "--version") || streq(word, "version")) {
                puts("strato " STRATOFS_VERSION);
                return STATUS_OK;
        }
        if (streq(word, "complete"))
                return complete(argc - 2, argv + 2);
        for (const struct verb *v = verbs; v->name; v++)
                if (streq(word, v->name))
                        return run_verb(v, argc - 1, argv + 1);
        if (*word)
                fprintf(stderr, "strato: there is no verb '%s'\n", word);
        usage(stderr);
        return STATUS_USAGE;
}
