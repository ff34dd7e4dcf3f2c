#include "common/fault.h"

#include <signal.h>
#include <stdatomic.h>

#include "common/log.h"

enum { FAULTS_MAX = 16, KILL = 1 };

bool fault_armed;

static struct fault {
        char name[64];
        int action; /* KILL or a negative errno */
        int nth;    /* 0: every time */
        atomic_int count;
} faults[FAULTS_MAX];
static int nfaults;

static int action_parse(const char *s)
{
        static const struct {
                const char *name;
                int action;
        } actions[] = {{"kill", KILL},
                       {"EIO", -EIO},
                       {"ENOSPC", -ENOSPC},
                       {"ETIMEDOUT", -ETIMEDOUT},
                       {"ENOMEM", -ENOMEM}};

        for (size_t i = 0; i < ARRAY_SIZE(actions); i++)
                if (streq(s, actions[i].name))
                        return actions[i].action;
        return 0;
}

static void fault_parse(const char *word)
{
        struct fault *f = &faults[nfaults];
        char action[32] = "";
        int n;

        n = nfaults < FAULTS_MAX ? sscanf(word, "%63[^=]=%31[^:]:%d", f->name, action, &f->nth) : 0;
        f->action = action_parse(action);
        if (n < 2 || !f->action) {
                log_error("STRATOFS_FAULT: '%s' is not understood", word);
                exit(2);
        }
        nfaults++;
}

void fault_init(void)
{
        const char *env = getenv("STRATOFS_FAULT");
        _cleanup_free_ char *copy = env && *env ? strdup(env) : NULL;
        char *save = NULL;

        for (char *w = copy ? strtok_r(copy, ",", &save) : NULL; w; w = strtok_r(NULL, ",", &save))
                fault_parse(w);
        fault_armed = nfaults > 0;
}

int fault_hit(const char *name)
{
        for (int i = 0; i < nfaults; i++) {
                struct fault *f = &faults[i];

                if (!streq(f->name, name))
                        continue;
                if (atomic_fetch_add(&f->count, 1) + 1 != f->nth && f->nth != 0)
                        continue;
                log_warning("fault point '%s'", name);
                if (f->action == KILL)
                        kill(getpid(), SIGKILL);
                return f->action;
        }
        return 0;
}
