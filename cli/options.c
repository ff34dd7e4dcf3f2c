/* The command line: one table of options, one parser for every verb. */
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "common/macro.h"

enum option_id {
        OPT_HELP,
        OPT_MOUNT,
        OPT_STATE,
        OPT_CONF,
        OPT_LOGLEVEL,
        OPT_JSON,
        OPT_GUESTS,
        OPT_FORCE,
        OPT_FSCK,
        OPT_ONCE,
        OPT_PRUNE,
        OPT_REPLACE,
        OPT_TIMEOUT,
        NOPTIONS,
};

static const struct option long_options[NOPTIONS + 1] = {
        [OPT_HELP] = {"help", no_argument, NULL, OPT_HELP},
        [OPT_MOUNT] = {"mount", required_argument, NULL, OPT_MOUNT},
        [OPT_STATE] = {"state", required_argument, NULL, OPT_STATE},
        [OPT_CONF] = {"conf", required_argument, NULL, OPT_CONF},
        [OPT_LOGLEVEL] = {"loglevel", required_argument, NULL, OPT_LOGLEVEL},
        [OPT_JSON] = {"json", no_argument, NULL, OPT_JSON},
        [OPT_GUESTS] = {"guests", no_argument, NULL, OPT_GUESTS},
        [OPT_FORCE] = {"force", no_argument, NULL, OPT_FORCE},
        [OPT_FSCK] = {"fsck", no_argument, NULL, OPT_FSCK},
        [OPT_ONCE] = {"once", no_argument, NULL, OPT_ONCE},
        [OPT_PRUNE] = {"prune", no_argument, NULL, OPT_PRUNE},
        [OPT_REPLACE] = {"replace", no_argument, NULL, OPT_REPLACE},
        [OPT_TIMEOUT] = {"timeout", required_argument, NULL, OPT_TIMEOUT},
};

static const char *const option_help[NOPTIONS] = {
        [OPT_HELP] = "--help              this text",
        [OPT_MOUNT] = "--mount DIR         the mount point (root: /cloud, else ~/cloud)",
        [OPT_STATE] = ("--state DIR         all that is kept (root: /var/lib/stratofs,\n"
                       "                      else ~/.local/state/stratofs)"),
        [OPT_CONF] = "--conf FILE         stratod's configuration",
        [OPT_LOGLEVEL] = "--loglevel LEVEL    how much the daemons log",
        [OPT_JSON] = "--json              for programs",
        [OPT_GUESTS] = "--guests            stop the guests, too",
        [OPT_FORCE] = "--force             do not wait for those who use the mount",
        [OPT_FSCK] = "--fsck              compare what is recorded with what is there",
        [OPT_ONCE] = "--once              print one table and end",
        [OPT_PRUNE] = "--prune             what the files do not describe goes",
        [OPT_REPLACE] =
                "--replace           daemons that run make room for the programs as they are now",
        [OPT_TIMEOUT] = "--timeout SECONDS   give up after that time",
};

static bool verb_knows(const struct verb *v, const char *option)
{
        size_t n = strlen(option);

        if (streq(option, "help"))
                return true;
        for (const char *p = v->options; (p = strstr(p, option)); p += n)
                if ((p == v->options || p[-1] == ' ') && (p[n] == ' ' || p[n] == '\0'))
                        return true;
        return false;
}

static void verb_usage(const struct verb *v)
{
        printf("usage: strato %s %s\n%s\n\n", v->name, v->synopsis, v->help ? v->help : "");
        for (int i = 0; i < NOPTIONS; i++)
                if (verb_knows(v, long_options[i].name))
                        printf("  %s\n", option_help[i]);
}

static int set_text(char **p, const char *value, const char *name, struct err **e)
{
        if (!*value)
                return err_set(e, -EINVAL, "--%s wants a value", name);
        free(*p);
        *p = strdup(value);
        return *p ? 0 : -ENOMEM;
}

static int set_timeout(struct cloud *c, const char *value, struct err **e)
{
        char *end;
        long n;

        errno = 0;
        n = strtol(value, &end, 10);
        if (errno || end == value || *end || n < 0 || n > 1000000000)
                return err_at(e, -EINVAL, value, strlen(value), 0, strlen(value),
                              "--timeout wants seconds");
        c->timeout = (int)n;
        return 0;
}

static int set_option(struct cloud *c, enum option_id id, struct err **e)
{
        switch (id) {
        case OPT_MOUNT:
                return set_text(&c->mount, optarg, "mount", e);
        case OPT_STATE:
                return set_text(&c->state, optarg, "state", e);
        case OPT_CONF:
                return set_text(&c->conf, optarg, "conf", e);
        case OPT_TIMEOUT:
                return set_timeout(c, optarg, e);
        case OPT_LOGLEVEL:
                c->loglevel = optarg;
                break;
        case OPT_JSON:
                c->json = true;
                break;
        case OPT_GUESTS:
                c->guests = true;
                break;
        case OPT_FORCE:
                c->force = true;
                break;
        case OPT_FSCK:
                c->fsck = true;
                break;
        case OPT_ONCE:
                c->once = true;
                break;
        case OPT_PRUNE:
                c->prune = true;
                break;
        case OPT_REPLACE:
                c->replace = true;
                break;
        default:
                break;
        }
        return 0;
}

int options_parse(const struct verb *v, int argc, char **argv, struct cloud *c, struct err **e)
{
        int id, r;

        c->timeout = -1;
        opterr = 0;
        optind = 1;
        while ((id = getopt_long(argc, argv, ":h", long_options, NULL)) != -1) {
                if (id == 'h' || id == OPT_HELP) {
                        verb_usage(v);
                        return 1;
                }
                if (id == ':')
                        return err_set(e, -EINVAL, "%s wants a value", argv[optind - 1]);
                if (id == '?' || !verb_knows(v, long_options[id].name)) {
                        err_set(e, -EINVAL, "unknown option %s", argv[optind - 1]);
                        return err_hint(e, -EINVAL, "strato %s --help", v->name);
                }
                r = set_option(c, id, e);
                if (r < 0)
                        return r;
        }
        c->words = argv + optind;
        c->nwords = argc - optind;
        if (c->nwords < v->min_words || c->nwords > v->max_words) {
                err_set(e, -EINVAL, c->nwords < v->min_words ? "too few words" : "too many words");
                return err_hint(e, -EINVAL, "strato %s %s", v->name, v->synopsis);
        }
        return 0;
}

void cloud_done(struct cloud *c)
{
        free(c->mount);
        free(c->state);
        free(c->run);
        free(c->conf);
}
