/* Who may do what.  The kernel checks modes and groups on the mount (default_permissions); this
 * is the second look, on each change. */
#include "control/internal.h"

#include <grp.h>
#include <pwd.h>

/* Supplementary groups as the kernel has them for this process. */
static int groups_of_pid(pid_t pid, gid_t want)
{
        char path[64], line[4096];
        _cleanup_file_ FILE *f = NULL;

        snprintf(path, sizeof(path), "/proc/%d/status", pid);
        f = fopen(path, "re");
        if (!f)
                return -errno;
        while (fgets(line, sizeof(line), f)) {
                char *p = line + 7, *end;

                if (strncmp(line, "Groups:", 7) != 0)
                        continue;
                for (;; p = end) {
                        unsigned long g = strtoul(p, &end, 10);

                        if (end == p)
                                return 0;
                        if (g == want)
                                return 1;
                }
        }
        return 0;
}

/* By the user data base, for a caller in another pid namespace. */
static bool groups_of_uid(uid_t uid, gid_t want)
{
        struct passwd pw, *found = NULL;
        gid_t list[256];
        int n = ARRAY_SIZE(list);
        char buf[4096];

        if (getpwuid_r(uid, &pw, buf, sizeof(buf), &found) != 0 || !found)
                return false;
        if (getgrouplist(found->pw_name, found->pw_gid, list, &n) < 0)
                n = ARRAY_SIZE(list);
        for (int i = 0; i < n; i++)
                if (list[i] == want)
                        return true;
        return false;
}

bool caller_in_group(const struct caller *who, gid_t gid)
{
        int r;

        if (who->gid == gid)
                return true;
        r = who->pid > 0 ? groups_of_pid(who->pid, gid) : -ESRCH;
        return r < 0 ? groups_of_uid(who->uid, gid) : r > 0;
}

int authorise(struct control *c, const struct caller *who, const struct object *o, enum role need,
              const char *what, struct err **e)
{
        const char *of = what ? " of " : "";
        char label[NAME_SIZE + 32];

        if (caller_is_admin(c, who) && need != ROLE_NOBODY)
                return 0;
        if (need == ROLE_NOBODY)
                return err_set(e, -EPERM, "%s%snobody may, it is the cloud's own", what ?: "",
                               what ? ": " : "");
        if (need == ROLE_ADMIN)
                return err_set(e, -EPERM, "%s%s%s: admins only", what ?: "", of,
                               object_label(o, label));
        if (!caller_in_group(who, object_gid(c, o)))
                return err_set(e, -EPERM, "%s%s%s: you are not of its tenant", what ?: "", of,
                               object_label(o, label));
        return o->kind->guard ? o->kind->guard(o, what, e) : 0;
}
