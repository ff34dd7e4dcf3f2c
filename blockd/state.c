#include "blockd/state.h"

#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>

#include "common/jsonl.h"
#include <sys/file.h>
#include <sys/stat.h>
#include <systemd/sd-id128.h>

#include "common/fileio.h"
#include "common/log.h"

static int lock_file(const char *dir, const char *name, mode_t mode, struct err **e)
{
        _cleanup_free_ char *path = path_printf("%s/%s", dir, name);
        _cleanup_close_ int fd = -1;
        struct stat st;
        int r;

        if (!path)
                return err_errno(e, -ENOMEM, "lock");
        r = mkdir_parents(dir, mode, e);
        if (r < 0)
                return r;
        /* The folder is of the user that blockd becomes: root is led nowhere from there. */
        fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
        if (fd < 0 || fstat(fd, &st) < 0)
                return err_errno(e, -errno, "open '%s'", path);
        if (!S_ISREG(st.st_mode) || st.st_nlink != 1)
                return err_set(e, -EPERM, "'%s' is no file of blockd's own", path);
        if (flock(fd, LOCK_EX | LOCK_NB) < 0)
                return err_set(e, errno == EWOULDBLOCK ? -EBUSY : -errno,
                               "another blockd is using '%s'", dir);
        return TAKE_FD(fd);
}

int state_lock(const char *state, struct err **e)
{
        return lock_file(state, "lock", 0711, e);
}

int state_lock_run(const char *run, struct err **e)
{
        return lock_file(run, "blockd.lock", 0755, e);
}

/* Whether the claim that is there forbids ours. */
static int check_claim(const char *path, const char *boot, const char *run, struct err **e)
{
        _cleanup_free_ char *text = NULL;
        json_auto_t *o = NULL;
        const char *old_boot, *old_run;
        struct stat a, b;
        size_t n;

        if (file_read(path, 1 << 16, &text, &n, NULL) < 0)
                return 0;
        o = json_loadb(text, n, 0, NULL);
        if (json_unpack(o, "{s:s, s:s}", "boot", &old_boot, "run", &old_run) < 0 ||
            !streq(old_boot, boot) || (stat(old_run, &a) < 0 && errno == ENOENT))
                return 0;
        /* One that we cannot reach is another. */
        if (stat(old_run, &a) == 0 && stat(run, &b) == 0 && a.st_dev == b.st_dev &&
            a.st_ino == b.st_ino)
                return 0;
        return err_set(e, -EBUSY,
                       "a blockd with --run '%s' was killed here; start it once more with that "
                       "--run and stop it with SIGTERM, so that its unflushed writes are kept",
                       old_run);
}

int state_claim(const char *state, const char *run, struct err **e)
{
        _cleanup_free_ char *path = path_printf("%s/claim", state);
        _cleanup_free_ char *text = NULL;
        json_auto_t *o = NULL;
        char boot[SD_ID128_STRING_MAX];
        sd_id128_t id;
        int r = sd_id128_get_boot(&id);

        if (r < 0 || !path)
                return err_errno(e, r < 0 ? r : -ENOMEM, "boot id");
        sd_id128_to_string(id, boot);
        r = check_claim(path, boot, run, e);
        if (r < 0)
                return r;
        o = json_pack("{s:s, s:s}", "boot", boot, "run", run);
        text = o ? json_text(o, JSON_COMPACT) : NULL;
        if (!text)
                return err_errno(e, -ENOMEM, "claim");
        return file_replace(path, text, strlen(text), 0600, e);
}

void state_settle(const char *run, struct volume_pool *pool)
{
        _cleanup_free_ char *maps = path_printf("%s/map", run);
        DIR *d = maps ? opendir(maps) : NULL;
        struct dirent *de;

        while (d && (de = readdir(d))) {
                _cleanup_err_ struct err *why = NULL;
                char id[VOLUME_ID_SIZE] = "";
                struct volume *v;

                snprintf(id, sizeof(id), "%.*s", (int)sizeof(id) - 1, de->d_name);
                if (de->d_name[0] == '.')
                        continue;
                if (volume_open(pool, id, false, &v, &why) == 0)
                        volume_close(v); /* flushes, or says what is wrong */
                else
                        log_warning("unflushed writes stay in '%s/%s': %s", maps, de->d_name,
                                    err_msg(why));
        }
        if (d)
                closedir(d);
}

/* The run folder may be one in which we can remove nothing. */
static bool folder_empty(const char *path)
{
        DIR *d = opendir(path);
        struct dirent *de;
        bool empty = d;

        while (d && (de = readdir(d)))
                empty &= streq(de->d_name, ".") || streq(de->d_name, "..");
        if (d)
                closedir(d);
        return empty;
}

void state_release(const char *state, const char *run)
{
        _cleanup_free_ char *path = path_printf("%s/claim", state);
        _cleanup_free_ char *maps = path_printf("%s/map", run);

        /* A volume that could not be flushed or opened. */
        if (maps && rmdir(maps) < 0 && errno != ENOENT && !folder_empty(maps))
                return;
        if (path)
                unlink(path);
}
