/* The agent in a guest: file systems that hold still for a snapshot. */
#include "backend/compute/libvirt/driver.h"

#include <libvirt/libvirt-qemu.h>

#include "common/clock.h"

enum {
        REJOIN_US = 10000000, /* an agent that was there is found again within that time */
        AGENT_S = 30,         /* a file system that freezes writes out first what it has */
};

/* libvirt waits 5 s for an agent's sign of life; without a limit of ours it would wait for ever for
 * what is asked then. */
static int limit_agent(virConnectPtr conn, virDomainPtr dom, const char *uuid, struct err **e)
{
        return virDomainAgentSetResponseTimeout(dom, AGENT_S, 0) < 0
                       ? guest_failed(conn, dom, uuid, e)
                       : 0;
}

/* unanswered: what no answer means. */
static int agent_failed(virConnectPtr conn, virDomainPtr dom, const char *uuid, int unanswered,
                        struct err **e)
{
        _cleanup_err_ struct err *why = NULL;
        int code = virGetLastErrorCode(), r = guest_failed(conn, dom, uuid, &why);

        if (code == VIR_ERR_ARGUMENT_UNSUPPORTED && r != -ENOENT) /* started without a channel */
                return err_set(e, -ENOTCONN, "%s", err_msg(why));
        if (code == VIR_ERR_AGENT_UNRESPONSIVE && r == -EIO)
                return err_set(e, unanswered, "%s", err_msg(why));
        return err_move(e, TAKE_PTR(why));
}

/* libvirt says the same of an agent that hears nothing and of one that was told to freeze and is
 * not done: the first is asked for a sign of life. */
static int ping_agent(virConnectPtr conn, virDomainPtr dom, const char *uuid, struct err **e)
{
        char *answer = virDomainQemuAgentCommand(dom, "{\"execute\":\"guest-ping\"}", AGENT_S, 0);

        if (!answer)
                return agent_failed(conn, dom, uuid, -ENOTCONN, e);
        free(answer);
        return 0;
}

/* libvirt finds the agents of guests that it has met again only a moment after the guests. */
static int find_agent(struct driver *d, virConnectPtr conn, virDomainPtr dom, const char *uuid,
                      struct err **e)
{
        int64_t until;

        {
                WITH_LOCK(&d->lock);
                until = d->opened + REJOIN_US;
        }
        for (;;) {
                _cleanup_err_ struct err *why = NULL;
                int r = ping_agent(conn, dom, uuid, &why);

                if (r == 0)
                        return 0;
                if (r != -ENOTCONN || clock_mono() >= until)
                        return err_move(e, TAKE_PTR(why));
                usleep(50000);
        }
}

static int freeze(virConnectPtr conn, virDomainPtr dom, const char *uuid, struct err **e)
{
        return virDomainFSFreeze(dom, NULL, 0, 0) < 0 ? agent_failed(conn, dom, uuid, -ETIMEDOUT, e)
                                                      : 0;
}

int op_freeze(struct compute *c, const char *uuid, struct err **e)
{
        _cleanup_conn_ virConnectPtr conn = NULL;
        _cleanup_dom_ virDomainPtr dom = NULL;
        _cleanup_err_ struct err *why = NULL;
        int r = guest_find(c, uuid, &conn, &dom, &why);

        if (r == 0)
                r = limit_agent(conn, dom, uuid, &why);
        if (r == 0)
                r = find_agent(driver(c), conn, dom, uuid, &why);
        if (r == 0)
                r = freeze(conn, dom, uuid, &why);
        if (r == -EIO) { /* one that is frozen refuses to freeze */
                if (virDomainFSThaw(dom, NULL, 0, 0) < 0)
                        virResetLastError();
                why = err_free(why);
                r = freeze(conn, dom, uuid, &why);
        }
        if (r < 0)
                err_move(e, TAKE_PTR(why));
        return r;
}

int op_thaw(struct compute *c, const char *uuid, struct err **e)
{
        _cleanup_conn_ virConnectPtr conn = NULL;
        _cleanup_dom_ virDomainPtr dom = NULL;
        int r = guest_find(c, uuid, &conn, &dom, e);

        if (r == 0)
                r = limit_agent(conn, dom, uuid, e);
        if (r == 0 && virDomainFSThaw(dom, NULL, 0, 0) < 0)
                r = agent_failed(conn, dom, uuid, -ENOTCONN, e);
        return r;
}

int op_password(struct compute *c, const char *uuid, const char *user, const char *hash,
                struct err **e)
{
        _cleanup_conn_ virConnectPtr conn = NULL;
        _cleanup_dom_ virDomainPtr dom = NULL;
        int r = guest_find(c, uuid, &conn, &dom, e);

        if (r == 0)
                r = limit_agent(conn, dom, uuid, e);
        if (r == 0)
                r = find_agent(driver(c), conn, dom, uuid, e);
        if (r == 0 && virDomainSetUserPassword(dom, user, hash, VIR_DOMAIN_PASSWORD_ENCRYPTED) < 0)
                r = agent_failed(conn, dom, uuid, -ETIMEDOUT, e);
        return r;
}
