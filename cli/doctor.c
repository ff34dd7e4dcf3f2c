/* strato doctor: tries what a cloud needs, one line a finding. */
#include "cli/doctor.h"

#include <jansson.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>

#include "cli/fsck.h"
#include "common/fileio.h"
#include "common/macro.h"
#include "common/size.h"

static const uint64_t FREE_WARN = 5ULL << 30, FREE_FAIL = 256ULL << 20;

/* Linux 6.1 (Debian 12's) is the oldest that is tried. */
static enum verdict check_kernel(const struct cloud *c _unused_, struct finding *f)
{
        unsigned major = 0, minor = 0;
        struct utsname u;

        uname(&u);
        sscanf(u.release, "%u.%u", &major, &minor);
        buf_printf(&f->words, "Linux %s", u.release);
        if (major < 6 || (major == 6 && minor < 1)) {
                buf_addstr(&f->words, ", older than 6.1: nobody has tried it");
                return CHECK_WARN;
        }
        return CHECK_OK;
}

/* The nearest folder that exists: the state folder is made by the first `up`. */
static int nearest_space(const char *path, struct statvfs *ret)
{
        _cleanup_free_ char *copy = strdup(path);

        while (copy && statvfs(copy, ret) < 0) {
                char *slash = strrchr(copy, '/');

                if (errno != ENOENT || !slash)
                        return -errno;
                slash[slash == copy] = '\0';
        }
        return copy ? 0 : -ENOMEM;
}

static enum verdict check_space(const struct cloud *c, struct finding *f)
{
        char text[SIZE_TEXT_MAX];
        struct statvfs fs;
        uint64_t free;
        int r;

        r = nearest_space(c->state, &fs);
        if (r < 0) {
                buf_printf(&f->words, "%s: %s", c->state, strerror(-r));
                return CHECK_FAIL;
        }
        free = (uint64_t)fs.f_bavail * fs.f_frsize;
        buf_printf(&f->words, "%s free for %s", size_human(text, free), c->state);
        if (free >= FREE_WARN)
                return CHECK_OK;
        buf_addstr(&f->hint, "--state DIR on a larger file system");
        return free < FREE_FAIL ? CHECK_FAIL : CHECK_WARN;
}

/* A tenant is a Unix group, made by groupadd. */
static enum verdict check_groups(const struct cloud *c _unused_, struct finding *f)
{
        if (geteuid() != 0) {
                buf_addstr(&f->words, "not root: tenants have no groups, the cloud is yours alone");
                return CHECK_WARN;
        }
        if (access("/usr/sbin/groupadd", X_OK) < 0) {
                buf_addstr(&f->words, "groupadd is missing: tenants other than default fail");
                buf_addstr(&f->hint, "apt-get install passwd");
                return CHECK_FAIL;
        }
        if (access("/etc/group", W_OK) < 0 || access("/etc", W_OK) < 0) {
                buf_printf(&f->words, "/etc/group cannot be changed: %m");
                return CHECK_FAIL;
        }
        buf_addstr(&f->words, "tenants' groups can be made");
        return CHECK_OK;
}

/* updatedb would walk the whole cloud every night. */
static enum verdict check_updatedb(const struct cloud *c _unused_, struct finding *f)
{
        _cleanup_free_ char *conf = NULL;

        if (file_read("/etc/updatedb.conf", 1 << 20, &conf, NULL, NULL) < 0) {
                buf_addstr(&f->words, "no updatedb here that would walk the mount");
                return CHECK_OK;
        }
        if (strstr(conf, "fuse.stratofs")) {
                buf_addstr(&f->words, "updatedb leaves the mount alone");
                return CHECK_OK;
        }
        buf_addstr(&f->words, "updatedb walks the mount every night");
        buf_addstr(&f->hint, "add fuse.stratofs to PRUNEFS in /etc/updatedb.conf");
        return CHECK_WARN;
}

static const struct check {
        const char *name;
        enum verdict (*run)(const struct cloud *c, struct finding *f);
        bool only_fsck;
} checks[] = {
        {"kernel", check_kernel},
        {"space", check_space},
        {"groups", check_groups},
        {"updatedb", check_updatedb},
        {"mount", check_mount},
        {"serve", check_serve},
        {"boot", check_boot},
        {"guests", check_guests},
        {"fsck", check_fsck, .only_fsck = true},
};

static const char *const verdict_words[] = {
        [CHECK_OK] = "ok", [CHECK_WARN] = "warn", [CHECK_FAIL] = "fail"};

/* With words only those checks that they name. */
static bool chosen(const struct cloud *c, const struct check *k)
{
        if (c->nwords == 0)
                return !k->only_fsck || c->fsck;
        for (int i = 0; i < c->nwords; i++)
                if (streq(c->words[i], k->name))
                        return true;
        return false;
}

static int check_words(const struct cloud *c, struct err **e)
{
        for (int i = 0; i < c->nwords; i++) {
                size_t k = 0;

                while (k < ARRAY_SIZE(checks) && !streq(c->words[i], checks[k].name))
                        k++;
                if (k == ARRAY_SIZE(checks))
                        return err_set(e, -EINVAL, "there is no check '%s'", c->words[i]);
        }
        return 0;
}

int verb_doctor(struct cloud *c, struct err **e)
{
        int status = STATUS_OK, r = check_words(c, e);
        json_t *list;

        if (r < 0)
                return r;
        list = json_array();
        for (size_t i = 0; i < ARRAY_SIZE(checks); i++) {
                _cleanup_(buf_done) struct buf words = {}, hint = {};
                struct finding f = {};
                enum verdict v;

                if (!chosen(c, &checks[i]))
                        continue;
                v = checks[i].run(c, &f);
                words = f.words;
                hint = f.hint;
                if (v == CHECK_FAIL)
                        status = STATUS_FAILED;
                if (!c->json) {
                        printf("%-5s%s: %s%s%s\n", verdict_words[v], checks[i].name,
                               buf_str(&words), hint.len ? "; try: " : "", buf_str(&hint));
                        fflush(stdout);
                        continue;
                }
                json_array_append_new(list, json_pack("{s:s s:s s:s s:s}", "check", checks[i].name,
                                                      "verdict", verdict_words[v], "words",
                                                      buf_str(&words), "hint", buf_str(&hint)));
        }
        if (c->json) {
                json_dumpf(list, stdout, JSON_INDENT(2));
                putchar('\n');
        }
        json_decref(list);
        return status;
}
