/* What the files of rtnetlink share. */
#pragma once

#include <libmnl/libmnl.h>
#include "backend/network/linux/netlink.h"

enum { NL_BUF_SIZE = 32768 };

struct nl {
        struct mnl_socket *s;
        unsigned seq;
        char buf[NL_BUF_SIZE];
};

/* A message in the buffer. */
struct nlmsghdr *nl_begin(struct nl *n, int type, int flags);
/* Sends what nl_begin() made and hears the answer: each message to cb.  -errno of the kernel. */
int nl_talk(struct nl *n, struct nlmsghdr *h, mnl_cb_t cb, void *arg);
/* The same for what is acknowledged only. */
int nl_change(struct nl *n, struct nlmsghdr *h, struct err **e, const char *words);
bool nl_mac(const char *text, uint8_t m[6]);
