/* The metadata service of one network: a small HTTP server at 169.254.169.254, and at
 * fe80::a9fe:a9fe of the guests' link.
 *
 * stratod writes a bundle (common/bundle.h) for each port that has a guest here, in files that are
 * called as the port's address, and as that of its link if it has IPv6.  A guest can speak only as
 * its port (the bridge's door sees to that), so the address a request comes from says whose
 * documents it is about; nobody is given any others.  What stratod has to say changes by replacing
 * the file; each request reads it.
 *
 * Names of a bundle are paths below "openstack/latest" and "latest"; all versions of either form
 * have the same documents.  Names with a dot are for us: ".tokens" is there when a request needs
 * a token, ".hops" is the IP time to live of answers that carry one.
 *
 * The process has chrooted into its folder, runs as a user of its own without any capability, and
 * can make neither processes nor sockets (main.c).  It writes one kind of file: "posted/ADDRESS",
 * the password that a guest gave away, which stratod collects. */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include "common/buf.h"

enum {
        PATH_SIZE = 512, /* of a request, longer ones are of nothing that is there */
        BUNDLE_MAX = 1 << 20,
        PASSWORD_MAX = 4096, /* bytes of a posted one */
        TOKEN_SIZE = 96,
        TOKEN_TTL_MAX = 21600, /* seconds: six hours, as EC2 has it */
        CONNECTIONS = 256,
        CONNECTIONS_GUEST = 16, /* of one guest */
        IDLE_SECONDS = 15,
};

struct MHD_Daemon;

struct service {
        uint8_t secret[32]; /* of this process; tokens are made with it */
        struct MHD_Daemon *http[2];
};

/* path.c: the documents' own names. */

/* url as the name of a document or folder, versions as `latest`, without slashes at either end; ""
 * is the root.  false: there cannot be one. */
bool path_canonical(const char *url, char out[PATH_SIZE]);
/* What is there: 1 a document, in *ret, which is a view into bundle or the text of *list; 0
 * nothing.  A folder is the list of its names, folders with a slash behind. */
struct bundle_item;
int path_look(const char *bundle, size_t n, const char *name, struct buf *list,
              struct bundle_item *ret);

/* token.c: tokens of IMDSv2.  They hold their end and whose they are (an IPv4 address, or the last
 * half of one of IPv6), signed: nothing is kept. */
void token_make(const struct service *s, uint64_t address, int64_t end, char out[TOKEN_SIZE]);
bool token_valid(const struct service *s, uint64_t address, int64_t now, const char *token);

/* http.c: answers on the listening sockets, -1: none, until one fails.  -errno. */
int http_serve(struct service *s, const int fd[2]);
