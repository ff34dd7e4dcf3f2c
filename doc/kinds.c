/* Prints the kinds' tables as reStructuredText, for stratofs(5): what the daemon enforces and what
 * the manual says come from the same data. */
#include "control/kind.h"
#include "common/macro.h"

static void heading(const char *text, char line)
{
        printf("%s\n", text);
        for (size_t i = 0; i < strlen(text); i++)
                putchar(line);
        printf("\n\n");
}

static void states(const struct kind *k, unsigned mask)
{
        if (mask == ANY_STATE)
                return;
        printf(" In:");
        for (unsigned i = 0; i < k->nstates; i++)
                if (mask & STATE(i))
                        printf(" *%s*", k->states[i].name);
        printf(".");
}

static void attrs(const struct kind *k)
{
        static const char *const types[] = {
                [ATTR_TEXT] = "text",     [ATTR_NAME] = "name",   [ATTR_SIZE] = "size",
                [ATTR_NUMBER] = "number", [ATTR_BOOL] = "0 or 1", [ATTR_WORD] = "word"};

        printf("Attributes:\n\n");
        for (unsigned i = 0; i < k->nattrs; i++) {
                const struct attr_def *a = &k->attrs[i];

                if (a->hidden)
                        continue;
                printf("**%s** (%s, %s)\n    %s.", a->name, types[a->type],
                       a->writer == ROLE_NOBODY  ? "read-only"
                       : a->writer == ROLE_ADMIN ? "written by admins"
                                                 : "written by members",
                       a->help);
                if (a->type == ATTR_WORD)
                        printf(" One of: %s.", a->words);
                if (a->def)
                        printf(" Default: %s.", a->def);
                if (a->writer != ROLE_NOBODY)
                        states(k, a->states);
                printf("\n\n");
        }
}

static void rest(const struct kind *k)
{
        if (k->nlinks)
                printf("Links:\n\n");
        for (unsigned i = 0; i < k->nlinks; i++) {
                printf("**%s%s** → %s\n    %s.", k->links[i].name, k->links[i].many ? "/" : "",
                       k->links[i].targets, k->links[i].help);
                states(k, k->links[i].states);
                printf("\n\n");
        }
        if (k->nfiles)
                printf("Files:\n\n");
        for (unsigned i = 0; i < k->nfiles; i++)
                printf("**%s%s%s**\n    %s.\n\n", k->files[i].folder ?: "",
                       k->files[i].folder ? "/" : "", k->files[i].name, k->files[i].help);
        if (k->nverbs)
                printf("Verbs:\n\n");
        for (unsigned i = 0; i < k->nverbs; i++) {
                printf("**%s** %s\n    %s%s.", k->verbs[i].name, k->verbs[i].args, k->verbs[i].help,
                       k->verbs[i].role == ROLE_ADMIN ? " (admins)" : "");
                states(k, k->verbs[i].states);
                printf("\n\n");
        }
        printf("States:\n\n");
        for (unsigned i = 0; i < k->nstates; i++)
                printf("**%s**%s\n    %s.\n\n", k->states[i].name,
                       k->states[i].transient ? " (passing)" : "", k->states[i].help);
}

int main(void)
{
        heading("KINDS", '=');
        for (unsigned i = 0; kinds[i]; i++) {
                const struct kind *k = kinds[i];

                if (k == &kind_cloud)
                        continue;
                heading(k->plural, '-');
                printf("%s\n\n", k->help);
                if (k->nattrs)
                        attrs(k);
                rest(k);
        }
        return 0;
}
