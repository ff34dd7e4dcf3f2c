/* nftables: whole rulesets, each in one transaction of the kernel's. */
#include "backend/network/linux/linux.h"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <nftables/libnftables.h>

/* libnftables keeps state of its own between calls. */
static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;

static int see_generation(const struct nlmsghdr *h, void *arg)
{
        const struct nlattr *a;

        mnl_attr_for_each(a, h, sizeof(struct nfgenmsg)) if (mnl_attr_get_type(a) == NFTA_GEN_ID) *
                (uint32_t *)arg = ntohl(mnl_attr_get_u32(a));
        return MNL_CB_STOP;
}

int nft_generation(uint32_t *ret, struct err **e)
{
        char buf[8192];
        struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
        struct nfgenmsg *g = mnl_nlmsg_put_extra_header(h, sizeof(*g));
        struct mnl_socket *s = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
        ssize_t n = -1;
        int r = -1;

        h->nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN;
        h->nlmsg_flags = NLM_F_REQUEST;
        h->nlmsg_seq = 1;
        *g = (struct nfgenmsg){.version = NFNETLINK_V0};
        if (s && mnl_socket_bind(s, 0, MNL_SOCKET_AUTOPID) == 0 &&
            mnl_socket_sendto(s, h, h->nlmsg_len) > 0)
                n = mnl_socket_recvfrom(s, buf, sizeof(buf));
        if (n > 0)
                r = mnl_cb_run(buf, n, 1, mnl_socket_get_portid(s), see_generation, ret);
        r = r < 0 ? -errno : 0;
        if (s)
                mnl_socket_close(s);
        return r < 0 ? err_errno(e, r, "nftables") : 0;
}

int nft_apply(const char *ruleset, uint32_t *ret_generation, struct err **e)
{
        uint32_t before = 0, after = 0;
        struct nft_ctx *x;
        int r = 0;

        WITH_LOCK(&one);
        r = nft_generation(&before, e);
        if (r < 0)
                return r;
        x = nft_ctx_new(NFT_CTX_DEFAULT);
        if (!x)
                return err_errno(e, -ENOMEM, "nftables");
        nft_ctx_buffer_error(x);
        nft_ctx_buffer_output(x);
        if (nft_run_cmd_from_buffer(x, ruleset) != 0) {
                const char *words = nft_ctx_get_error_buffer(x);

                r = err_set(e, -EIO, "nftables: %.*s",
                            words ? (int)MIN(strcspn(words, "\n"), 300) : 0, words ? words : "");
        }
        nft_ctx_free(x);
        if (r == 0)
                r = nft_generation(&after, e);
        /* Somebody else's change came in between: what is there now is not known. */
        *ret_generation = after == before + 1 ? after : after - 1;
        return r;
}
