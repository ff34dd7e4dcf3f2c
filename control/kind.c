/* Kinds: look-ups, values as text, and the help made from the tables. */
#include "control/internal.h"

#include <ctype.h>

#include "common/size.h"

const struct kind *const kinds[] = {&kind_cloud,          &kind_tenant,      &kind_flavor,
                                    &kind_host,           &kind_image,       &kind_volume,
                                    &kind_snapshot,       &kind_backup,      &kind_instance,
                                    &kind_group,          &kind_job,         &kind_volume_type,
                                    &kind_network,        &kind_subnet,      &kind_port,
                                    &kind_security_group, &kind_floating_ip, &kind_router,
                                    &kind_load_balancer,  &kind_listener,    &kind_vpn,
                                    NULL};

const struct kind *kind_by_name(const char *name)
{
        for (unsigned i = 0; kinds[i]; i++)
                if (streq(kinds[i]->name, name))
                        return kinds[i];
        return NULL;
}

const struct kind *kind_by_plural(const char *plural)
{
        for (unsigned i = 0; kinds[i]; i++)
                if (streq(kinds[i]->plural, plural))
                        return kinds[i];
        return NULL;
}

int kind_index(const struct kind *k)
{
        for (int i = 0; kinds[i]; i++)
                if (kinds[i] == k)
                        return i;
        return -1;
}

#define FIND(array, count)                                                                         \
        for (unsigned i = 0; i < (count); i++)                                                     \
                if (streq((array)[i].name, name))                                                  \
                        return i;                                                                  \
        return -1

int kind_attr(const struct kind *k, const char *name)
{
        FIND(k->attrs, k->nattrs);
}

int kind_link(const struct kind *k, const char *name)
{
        FIND(k->links, k->nlinks);
}

int kind_state(const struct kind *k, const char *name)
{
        FIND(k->states, k->nstates);
}

int kind_file(const struct kind *k, const char *name)
{
        FIND(k->files, k->nfiles);
}

bool kind_folder(const struct kind *k, unsigned i)
{
        const char *folder = k->files[i].folder;

        return folder &&
               (i == 0 || !k->files[i - 1].folder || !streq(k->files[i - 1].folder, folder));
}

bool attr_is_text(const struct attr_def *a)
{
        return a->type == ATTR_TEXT || a->type == ATTR_NAME || a->type == ATTR_WORD;
}

void value_free(const struct attr_def *a, union value *v)
{
        if (attr_is_text(a)) {
                free(v->s);
                v->s = NULL;
        }
}

/* Whether the n bytes of text are one of the space-separated words. */
static bool word_in(const char *words, const char *text, size_t n)
{
        for (const char *p = words; p && *p;) {
                size_t len = strcspn(p, " ");

                if (len == n && memcmp(p, text, n) == 0)
                        return true;
                p += len + (p[len] == ' ');
        }
        return false;
}

static int text_parse(struct control *c, const struct attr_def *a, const char *text, size_t n,
                      union value *ret, struct err **e)
{
        const struct kind *k = a->of ? kind_by_name(a->of) : NULL;
        _cleanup_free_ char *s = NULL;

        if (a->lines && !text_clean(text, n, true))
                return err_at(e, -EINVAL, text, n, 0, n, "%s is UTF-8 text", a->name);
        if (!a->lines && !text_clean(text, n, false))
                return err_at(e, -EINVAL, text, n, 0, n,
                              "%s is one line of UTF-8 without control characters", a->name);
        if (a->type == ATTR_WORD && !word_in(a->words, text, n))
                return err_at(e, -EINVAL, text, n, 0, n, "%s is one of: %s", a->name, a->words);
        if (a->max && n > a->max)
                return err_at(e, -EINVAL, text, n, a->max, n - a->max,
                              "%s has at most %" PRIu64 " bytes", a->name, a->max);
        if (n == 0) {
                ret->s = NULL;
                return 0;
        }
        s = xstrndup(text, n);
        if (a->type == ATTR_NAME) {
                int r = name_check(text, n, e);

                if (r < 0)
                        return r;
                if (k && !model_by_name(c, NULL, k, s))
                        return err_at(e, -ENOENT, text, n, 0, n, "there is no %s '%s'", a->of, s);
        }
        ret->s = TAKE_PTR(s);
        return 0;
}

static int bool_parse(const struct attr_def *a, const char *text, size_t n, union value *ret,
                      struct err **e)
{
        if (word_in("1 on true yes", text, n)) {
                ret->u = 1;
                return 0;
        }
        if (word_in("0 off false no", text, n)) {
                ret->u = 0;
                return 0;
        }
        return err_at(e, -EINVAL, text, n, 0, n, "%s is 0 or 1", a->name);
}

static int number_parse(const char *text, size_t n, uint64_t *ret, struct err **e)
{
        uint64_t v = 0;

        if (n == 0)
                return err_at(e, -EINVAL, text, n, 0, 0, "a number is missing");
        for (size_t i = 0; i < n; i++) {
                if (!isdigit((unsigned char)text[i]))
                        return err_at(e, -EINVAL, text, n, i, n - i, "not a number");
                if (v > (INT64_MAX - 9) / 10)
                        return err_at(e, -EINVAL, text, n, 0, n, "number is too large");
                v = v * 10 + (text[i] - '0');
        }
        *ret = v;
        return 0;
}

int value_parse(struct control *c, const struct attr_def *a, const char *text, size_t n,
                union value *ret, struct err **e)
{
        int r;

        if (attr_is_text(a))
                return text_parse(c, a, text, n, ret, e);
        if (a->type == ATTR_BOOL)
                return bool_parse(a, text, n, ret, e);
        if (a->max_word && n == 3 && memcmp(text, "max", 3) == 0) {
                ret->u = VALUE_MAX;
                return 0;
        }
        r = a->type == ATTR_SIZE ? size_parse(text, n, &ret->u, e)
                                 : number_parse(text, n, &ret->u, e);
        if (r < 0)
                return r;
        if (ret->u < a->min)
                return err_at(e, -EINVAL, text, n, 0, n, "%s is at least %" PRIu64, a->name,
                              a->min);
        if (a->max && ret->u > a->max)
                return err_at(e, -EINVAL, text, n, 0, n, "%s is at most %" PRIu64, a->name, a->max);
        return 0;
}

void value_render(const struct attr_def *a, union value v, struct buf *out)
{
        if (attr_is_text(a))
                buf_addstr(out, v.s ? v.s : "");
        else if (a->max_word && v.u == VALUE_MAX)
                buf_addstr(out, "max");
        else
                buf_printf(out, "%" PRIu64, v.u);
}

/* --- help ---------------------------------------------------------------------------------- */

static const char *attr_type_text(const struct attr_def *a)
{
        static const char *const names[] = {
                [ATTR_TEXT] = "text",     [ATTR_NAME] = "name", [ATTR_SIZE] = "size",
                [ATTR_NUMBER] = "number", [ATTR_BOOL] = "0|1",  [ATTR_WORD] = "word"};

        return a->type == ATTR_WORD ? a->words : names[a->type];
}

static void help_states(const struct kind *k, unsigned states, struct buf *out)
{
        if (states == ANY_STATE)
                return;
        buf_addstr(out, " [in");
        for (unsigned i = 0; i < k->nstates; i++)
                if (states & STATE(i))
                        buf_printf(out, " %s", k->states[i].name);
        buf_addc(out, ']');
}

static void help_attrs(const struct kind *k, struct buf *out)
{
        for (unsigned i = 0; i < k->nattrs; i++) {
                const struct attr_def *a = &k->attrs[i];

                if (a->hidden)
                        continue;
                buf_printf(out, "  %-14s %-9s %s%s", a->name,
                           a->writer == ROLE_NOBODY ? "read" : "write", a->help,
                           a->writer == ROLE_ADMIN ? " (admin)" : "");
                buf_printf(out, " <%s>", attr_type_text(a));
                if (a->writer != ROLE_NOBODY)
                        help_states(k, a->states, out);
                buf_addc(out, '\n');
        }
}

void kind_help(const struct kind *k, struct buf *out)
{
        buf_printf(out, "%s: %s\n", k->plural, k->help);
        if (k->nattrs) {
                buf_addstr(out, "\nattributes (cat reads, echo writes):\n");
                help_attrs(k, out);
        }
        if (k->nlinks)
                buf_addstr(out, "\nlinks (ln -s binds, rm unbinds):\n");
        for (unsigned i = 0; i < k->nlinks; i++) {
                const struct link_def *l = &k->links[i];

                buf_printf(out, "  %-14s %-9s %s <%s>", l->name, l->many ? "many" : "one", l->help,
                           l->targets);
                help_states(k, l->states, out);
                buf_addc(out, '\n');
        }
        if (k->nfiles)
                buf_addstr(out, "\nfiles:\n");
        for (unsigned i = 0; i < k->nfiles; i++)
                buf_printf(out, "  %s%s%-14s %s\n", k->files[i].folder ?: "",
                           k->files[i].folder ? "/" : "", k->files[i].name, k->files[i].help);
        if (k->nverbs)
                buf_addstr(out, "\nverbs (echo VERB > ctl):\n");
        for (unsigned i = 0; i < k->nverbs; i++) {
                const struct verb_def *v = &k->verbs[i];

                buf_printf(out, "  %s%s%s: %s%s", v->name, *v->args ? " " : "", v->args, v->help,
                           v->role == ROLE_ADMIN ? " (admin)" : "");
                help_states(k, v->states, out);
                buf_addc(out, '\n');
        }
        buf_addstr(out, "\nstates:\n");
        for (unsigned i = 0; i < k->nstates; i++)
                buf_printf(out, "  %-14s %s%s\n", k->states[i].name, k->states[i].help,
                           k->states[i].transient ? " (passing)" : "");
}

void kinds_help(const char *folder, struct buf *out)
{
        buf_printf(out, "%s: its collections, each with a `help` of its own.\n\ncollections:\n",
                   folder ?: "a tenant");
        for (unsigned i = 0; kinds[i]; i++) {
                const struct kind *k = kinds[i];

                if (folder ? k->global && k->parent && streq(k->parent, folder)
                           : !k->global && !k->inside)
                        buf_printf(out, "  %-12s %s\n", k->plural, k->help);
        }
        if (folder) {
                buf_addstr(out, "\nfiles:\n  loglevel       how much stratod logs: error warning "
                                "info debug\n");
                return;
        }
        buf_addstr(out, "\nfiles:\n  events         what happened in it; .follow streams it\n"
                        "  errors         the calls in it that failed, in words\n"
                        "  index          every object, a line each\n");
        for (unsigned i = 0; i < kind_tenant.nfiles; i++)
                buf_printf(out, "  %-14s %s\n", kind_tenant.files[i].name,
                           kind_tenant.files[i].help);
        buf_addstr(out, "\nA link finds its target from here: ln -s volumes/v "
                        "instances/web/volumes/. `help` beside the tenants tells of them.\n");
}
