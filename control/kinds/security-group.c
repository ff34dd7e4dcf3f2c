/* Security groups: what ports let in and out. */
#include "control/network.h"

#include <ctype.h>

/* --- rules as text: in|out PROTOCOL [PORT[-PORT]] [from|to NETWORK|group NAME] -------------------
 */

/* The next word between blanks, copied, and where it begins. */
static bool word(const char **p, char out[NAME_SIZE], const char **at)
{
        size_t n;

        *p += strspn(*p, " \t");
        *at = *p;
        n = strcspn(*p, " \t");
        if (n == 0 || n >= NAME_SIZE)
                return false;
        memcpy(out, *p, n);
        out[n] = '\0';
        *p += n;
        return true;
}

static int refuse(const char *line, const char *at, const char *words, struct err **e)
{
        return err_at(e, -EINVAL, line, strlen(line), at - line, strcspn(at, " \t"), "%s", words);
}

static bool number(const char *s, const char *end, unsigned max, unsigned *ret)
{
        unsigned v = 0;

        if (s == end || end - s > 5)
                return false;
        for (; s < end; s++) {
                if (!isdigit((unsigned char)*s))
                        return false;
                v = v * 10 + (*s - '0');
        }
        *ret = v;
        return v <= max;
}

static int protocol(const char *s)
{
        unsigned n;

        if (streq(s, "any"))
                return -1;
        if (streq(s, "tcp"))
                return 6;
        if (streq(s, "udp"))
                return 17;
        if (streq(s, "icmp"))
                return 1;
        if (streq(s, "icmp6"))
                return 58;
        return number(s, s + strlen(s), 255, &n) ? (int)n : -2;
}

static bool ports(const char *s, struct net_rule *r)
{
        const char *dash = strchr(s, '-'), *end = s + strlen(s);
        unsigned from, to;

        if (!number(s, dash ?: end, 65535, &from) || from == 0)
                return false;
        to = from;
        if (dash && (!number(dash + 1, end, 65535, &to) || to < from))
                return false;
        r->from = from;
        r->to = to;
        return true;
}

static int peer(const char *line, const char **p, struct rule *ret, struct err **e)
{
        char w[NAME_SIZE], text[NAME_SIZE + 4];
        const char *at;

        if (!word(p, w, &at))
                return refuse(line, at, "expected any, a network, like 10.0.0.0/8, or group NAME",
                              e);
        if (streq(w, "any"))
                return 0;
        if (streq(w, "group")) {
                if (!word(p, ret->group, &at) || !name_valid(ret->group))
                        return refuse(line, at, "expected the name of a group", e);
                return 0;
        }
        ret->r.six = strchr(w, ':') != NULL;
        ret->r.four = !ret->r.six;
        snprintf(text, sizeof(text), "%s%s", w, strchr(w, '/') ? "" : ret->r.six ? "/128" : "/32");
        if (ret->r.six) {
                if (!cidr6_parse(text, strlen(text), &ret->r.peer6, &ret->r.prefix))
                        return refuse(line, at, "expected an IPv6 network, like fd00::/64", e);
                return 0;
        }
        if (cidr_parse(text, strlen(text), &ret->r.peer, &ret->r.prefix, NULL) < 0)
                return refuse(line, at, "expected a network, like 10.0.0.0/8, or group NAME", e);
        return 0;
}

int rule_parse(const char *line, struct rule *ret, struct err **e)
{
        const char *p = line, *at;
        char w[NAME_SIZE];
        int r = 0;

        *ret = (struct rule){.r = {.group = -1}};
        if (!word(&p, w, &at) || (!streq(w, "in") && !streq(w, "out")))
                return refuse(line, at, "a rule begins with `in` or `out`", e);
        ret->r.out = streq(w, "out");
        if (!word(&p, w, &at) || (ret->r.proto = protocol(w)) == -2)
                return refuse(line, at, "a protocol is any, tcp, udp, icmp, icmp6 or a number", e);
        if (!word(&p, w, &at))
                return *at ? refuse(line, at, "too long", e) : 0;
        if (isdigit((unsigned char)*w)) {
                if (ret->r.proto != 6 && ret->r.proto != 17)
                        return refuse(line, at, "only tcp and udp have ports", e);
                if (!ports(w, &ret->r))
                        return refuse(line, at, "a port is 1 to 65535, or FIRST-LAST", e);
                if (!word(&p, w, &at))
                        return *at ? refuse(line, at, "too long", e) : 0;
        }
        if (!streq(w, ret->r.out ? "to" : "from"))
                return refuse(line, at, ret->r.out ? "expected `to`" : "expected `from`", e);
        r = peer(line, &p, ret, e);
        if (r == 0 && word(&p, w, &at))
                r = refuse(line, at, "nothing is expected here", e);
        return r;
}

static void rule_text(const struct rule *x, struct buf *out)
{
        char a[ADDRESS_TEXT_SIZE], a6[ADDRESS6_TEXT_SIZE];
        const struct net_rule *r = &x->r;

        buf_addstr(out, r->out ? "out " : "in ");
        switch (r->proto) {
        case -1:
                buf_addstr(out, "any");
                break;
        case 1:
                buf_addstr(out, "icmp");
                break;
        case 6:
                buf_addstr(out, "tcp");
                break;
        case 17:
                buf_addstr(out, "udp");
                break;
        case 58:
                buf_addstr(out, "icmp6");
                break;
        default:
                buf_printf(out, "%d", r->proto);
        }
        if (r->from)
                buf_printf(out, r->from == r->to ? " %u" : " %u-%u", r->from, r->to);
        if (*x->group)
                buf_printf(out, " %s group %s", r->out ? "to" : "from", x->group);
        else if (r->four || r->six)
                buf_printf(out, " %s %s/%u", r->out ? "to" : "from",
                           r->six ? network_address6(a6, &r->peer6) : network_address(a, r->peer),
                           r->prefix);
        buf_addc(out, '\n');
}

/* --- the list -------------------------------------------------------------------------------- */

static void render_rules(struct control *c, const struct object *o, struct buf *out)
{
        buf_addstr(out, object_str(o, "text"));
}

/* Where the line (with its newline) stands in the list; NULL: nowhere. */
static const char *find(const char *list, const char *line)
{
        for (const char *p = list; (p = strstr(p, line)); p++)
                if (p == list || p[-1] == '\n')
                        return p;
        return NULL;
}

/* "RULE" and "+ RULE" add one, "- RULE" takes it away.  What is so already is no failure. */
static int write_rule(struct txn *t, struct object *o, const char *line, struct err **e)
{
        const char *list = object_str(o, "text"), *there;
        _cleanup_buf_ struct buf text = {}, next = {};
        bool less = *line == '-';
        struct rule x;
        size_t count = 0;
        int r;

        if (*line == '-' || *line == '+')
                line += 1 + strspn(line + 1, " \t");
        r = rule_parse(line, &x, e);
        if (r < 0)
                return r;
        if (*x.group && !less && !model_by_name(t->c, o->tenant, &kind_security_group, x.group))
                return err_set(e, -ENOENT, "there is no security group '%s'", x.group);
        rule_text(&x, &text);
        there = find(list, buf_str(&text));
        if (less ? !there : there != NULL)
                return less ? err_set(e, -ENOENT, "there is no such rule") : 0;
        for (const char *p = list; *p; p++)
                count += *p == '\n';
        if (!less && count >= RULES_MAX)
                return err_set(e, -EDQUOT, "rules of a group: limit=%d used=%zu wanted=1",
                               RULES_MAX, count);
        buf_add(&next, list, less ? (size_t)(there - list) : strlen(list));
        buf_addstr(&next, less ? there + text.len : buf_str(&text));
        txn_set_str(t, o, "text", buf_str(&next));
        return 0;
}

static int create(struct txn *t, struct object *o, struct err **e)
{
        struct collection *l = model_collection(t->c, o->tenant, &kind_security_group);
        int r = networks_check(t->c, e);

        if (r == 0 && l && l->n > GROUPS_MAX)
                r = err_set(e, -EDQUOT, "security groups of a tenant: limit=%d used=%zu wanted=1",
                            GROUPS_MAX, l->n - 1);
        if (r == 0)
                txn_set_str(t, o, "text", "out any\n");
        return r;
}

static int remove_group(struct txn *t, struct object *o, struct err **e)
{
        int r = check_referrers(o, e);

        if (r == 0 && streq(o->name, "default"))
                r = err_set(e, -EPERM, "ports without a group of their own have this one");
        if (r == 0)
                txn_delete(t, o);
        return r;
}

static int rename_group(struct txn *t, struct object *o, const char *name, struct err **e)
{
        return err_set(e, -EPERM, "rules know it by its name");
}

static const struct attr_def attrs[] = {
        {"description", ATTR_TEXT, ROLE_MEMBER, .max = 255, .help = "words for people"},
        {"text", ATTR_TEXT, ROLE_NOBODY, .hidden = true, .help = "its rules"},
};

static const struct file_def files[] = {
        {"rules", FILE_LINES, ROLE_MEMBER, .render = render_rules, .write = write_rule,
         .help = "what it lets pass: `in tcp 22 from 10.0.0.0/8`, `in any from group web`, `out "
                 "any`; "
                 "`- RULE` takes one away; 0.0.0.0/0 is all of IPv4, ::/0 all of IPv6, and without "
                 "a "
                 "network it is both"},
};

static const struct state_def states[] = {
        {"active", .help = "in force"},
};

const struct kind kind_security_group = {
        .name = "security_group",
        .plural = "security_groups",
        .help = "What ports let in and out; answers always pass, and what no rule names is "
                "dropped.",
        .schema = 1,
        .creator = ROLE_MEMBER,
        .attrs = attrs,
        .nattrs = ARRAY_SIZE(attrs),
        .states = states,
        .nstates = ARRAY_SIZE(states),
        .files = files,
        .nfiles = ARRAY_SIZE(files),
        .create = create,
        .remove = remove_group,
        .rename = rename_group,
};
