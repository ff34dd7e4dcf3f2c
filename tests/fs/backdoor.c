#include "backdoor.h"

#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct client {
        struct control *c;
        int fd;
};

/* The volume's, or the tenant's if name is NULL. */
static uint64_t number_in(struct control *c, const char *of, const char *name)
{
        struct object *tenant, *o = NULL;
        uint64_t no;

        control_rdlock(c);
        tenant = model_by_name(c, NULL, &kind_tenant, of);
        if (tenant && name)
                o = model_by_name(c, tenant, &kind_volume, name);
        no = name ? (o ? o->no : 0) : tenant ? tenant->no : 0;
        control_unlock(c);
        return no;
}

static uint64_t number(struct control *c, const char *name)
{
        return number_in(c, "default", name);
}

static int fill(struct control *c, const struct caller *who, const char *of, const char *prefix,
                unsigned count, struct err **e)
{
        uint64_t owner = number_in(c, of, NULL), no;
        char name[64];
        int r = 0;

        for (unsigned i = 0; !r && i < count; i++) {
                snprintf(name, sizeof(name), "%s%06u", prefix, i);
                r = control_create(c, who, owner, &kind_volume, name, &no, e);
        }
        return r;
}

static int serve(struct control *c, char *line, struct err **e)
{
        const struct caller who = {.uid = getuid(), .gid = getgid(), .pid = getpid()};
        char *save = NULL, *op = strtok_r(line, " \n", &save), *name = strtok_r(NULL, " \n", &save);
        char *count, *rest = strtok_r(NULL, "\n", &save);
        uint64_t no;

        if (!op || !name)
                return -EINVAL;
        if (streq(op, "create"))
                return control_create(c, &who, number(c, NULL), &kind_volume, name, &no, e);
        if (streq(op, "fill"))
                return fill(c, &who, "default", name, (unsigned)strtoul(rest ?: "0", NULL, 10), e);
        if (streq(op, "fill-in") && (count = strchr(rest ?: "", ' ')))
                return fill(c, &who, name, strndupa(rest, (size_t)(count - rest)),
                            (unsigned)strtoul(count, NULL, 10), e);
        no = number(c, name);
        if (streq(op, "delete"))
                return control_delete(c, &who, no, e);
        if (streq(op, "rename") && rest)
                return control_rename(c, &who, no, rest, e);
        if (streq(op, "describe") && rest)
                return control_set(c, &who, no, (unsigned)kind_attr(&kind_volume, "description"),
                                   rest, strlen(rest), e);
        return -EINVAL;
}

static void *serve_client(void *arg)
{
        struct client *client = arg;
        _cleanup_file_ FILE *in = fdopen(dup(client->fd), "re");
        char line[600];

        while (in && fgets(line, sizeof(line), in)) {
                _cleanup_err_ struct err *e = NULL;
                int r = serve(client->c, line, &e);

                if (dprintf(client->fd, "%d %s\n", -r, e ? err_msg(e) : "") < 0)
                        break;
        }
        close(client->fd);
        free(client);
        return NULL;
}

static void *listener(void *arg)
{
        struct client *l = arg;
        int fd;

        while ((fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
                struct client *client = malloc(sizeof(*client));
                pthread_t t;

                if (!client)
                        abort();
                *client = (struct client){.c = l->c, .fd = fd};
                if (pthread_create(&t, NULL, serve_client, client) == 0)
                        pthread_detach(t);
        }
        return NULL;
}

int backdoor_open(struct control *c, const char *path, struct err **e)
{
        static struct client l;
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        pthread_t t;

        l = (struct client){.c = c, .fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
        snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
        if (l.fd < 0 || bind(l.fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(l.fd, 32) < 0)
                return err_errno(e, -errno, "%s", path);
        if (pthread_create(&t, NULL, listener, &l) != 0)
                return -EAGAIN;
        pthread_detach(t);
        return 0;
}
