/* nftables: whole rulesets, each in one transaction of the kernel's. */
#include "backend/network/linux/linux.h"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <nftables/libnftables.h>

#include "common/log.h"

/* libnftables keeps state of its own between calls. */
static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;

static int see_generation(const struct nlmsghdr *h, void *arg)
{
        const struct nlattr *a;

        mnl_attr_for_each(a, h, sizeof(struct nfgenmsg)) if (mnl_attr_get_type(a) == NFTA_GEN_ID) *
                (uint32_t *)arg = ntohl(mnl_attr_get_u32(a));
        return MNL_CB_STOP;
}

/* How often the namespace's rules have changed. */
static int generation(struct nft *n, uint32_t *ret, struct err **e)
{
        char buf[8192];
        struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
        struct nfgenmsg *g = mnl_nlmsg_put_extra_header(h, sizeof(*g));
        ssize_t len = -1;
        int r = -1;

        h->nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN;
        h->nlmsg_flags = NLM_F_REQUEST;
        h->nlmsg_seq = ++n->seq;
        *g = (struct nfgenmsg){.version = NFNETLINK_V0};
        if (mnl_socket_sendto(n->socket, h, h->nlmsg_len) > 0)
                len = mnl_socket_recvfrom(n->socket, buf, sizeof(buf));
        if (len > 0)
                r = mnl_cb_run(buf, len, n->seq, mnl_socket_get_portid(n->socket), see_generation,
                               ret);
        return r < 0 ? err_errno(e, -errno, "nftables") : 0;
}

/* Of the thread's namespace, kept: the kernel lets nobody close one who has just replaced a table
 * before all packets in flight are done with it. */
static int handle(struct nft *n, struct err **e)
{
        if (n->socket)
                return 0;
        n->socket = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
        n->ctx = nft_ctx_new(NFT_CTX_DEFAULT);
        if (!n->socket || !n->ctx || mnl_socket_bind(n->socket, 0, MNL_SOCKET_AUTOPID) < 0) {
                int r = err_errno(e, -errno, "nftables");

                nft_done(n);
                return r;
        }
        nft_ctx_buffer_error(n->ctx);
        nft_ctx_buffer_output(n->ctx);
        return 0;
}

void nft_done(struct nft *n)
{
        if (n->socket)
                mnl_socket_close(n->socket);
        if (n->ctx)
                nft_ctx_free(n->ctx);
        free(n->ruleset);
        *n = (struct nft){};
}

/* -EIO with nftables' words. */
static int run(struct nft *n, const struct buf *text, struct err **e)
{
        const char *words;

        if (nft_run_cmd_from_buffer(n->ctx, buf_str(text)) == 0)
                return 0;
        words = nft_ctx_get_error_buffer(n->ctx);
        return err_set(e, -EIO, "nftables: %.*s", words ? (int)MIN(strcspn(words, "\n"), 300) : 0,
                       words ? words : "");
}

/* What differs from what is there, in one transaction; where that cannot be, all of it. */
static int change(struct nft *n, const char *old, const struct buf *text, struct err **e)
{
        _cleanup_buf_ struct buf delta = {};
        _cleanup_err_ struct err *why = NULL;

        if (old && ruleset_delta(old, buf_str(text), &delta)) {
                if (delta.len == 0 || run(n, &delta, &why) == 0)
                        return 0;
                log_debug("nftables: the whole, as a part was refused: %s", err_msg(why));
        }
        return run(n, text, e);
}

int nft_apply(struct nft *n, struct buf *text, struct err **e)
{
        _cleanup_free_ char *old = NULL;
        uint32_t before = 0, after = 0;
        int r;

        if (text->failed)
                return err_errno(e, -ENOMEM, "ruleset");
        WITH_LOCK(&one);
        r = handle(n, e);
        if (r == 0)
                r = generation(n, &before, e);
        if (r == 0 && n->ruleset && before == n->generation) {
                if (streq(n->ruleset, buf_str(text)))
                        return 0;
                old = TAKE_PTR(n->ruleset);
        }
        free(n->ruleset);
        n->ruleset = NULL;
        if (r == 0)
                r = change(n, old, text, e);
        if (r == 0)
                r = generation(n, &after, e);
        if (r < 0) {
                nft_done(n);
                return r;
        }
        /* Somebody else's change came in between: what is there now is not known. */
        n->generation = after - before <= 1 ? after : after - 1;
        n->ruleset = buf_take(text);
        return 0;
}
