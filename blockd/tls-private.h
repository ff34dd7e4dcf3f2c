/* What the two halves of TLS share: tls-config.c and tls.c. */
#pragma once

#include <openssl/ssl.h>
#include <pthread.h>
#include <uthash.h>
#include "blockd/tls.h"

struct psk {
        UT_hash_handle hh;
        char user[TLS_NAME_MAX + 1];
        unsigned char key[PSK_MAX_PSK_LEN];
        unsigned n;
};

/* One load of the folder; never changed, freed with its last user. */
struct credentials {
        SSL_CTX *ctx;
        struct psk *keys;
        unsigned users; /* under the config's lock */
};

struct tls_config {
        char *dir;
        BIO_METHOD *bio; /* of all connections */
        pthread_mutex_t lock;
        struct credentials *now;
};

struct tls {
        struct tls_config *config;
        struct credentials *credentials;
        SSL *ssl;
        int fd;
        int64_t deadline;
        bool buffered; /* receive only what was received already */
        bool more;     /* what is sent has more right behind it */
        int error;     /* of the socket, and the last */
        int again;     /* -EAGAIN, -EINTR: why receiving stopped without an error */
        char psk[TLS_NAME_MAX + 1];
        unsigned n;
        char *names[TLS_NAMES];
};

/* A socket under OpenSSL that knows deadlines; its data is a struct tls.  NULL without memory. */
BIO_METHOD *tls_bio_method(void);
struct credentials *credentials_ref(struct tls_config *c);
void credentials_unref(struct tls_config *c, struct credentials *k);
/* OpenSSL's words for what just failed; "" if it has none.  Empties its queue. */
void tls_words(char *out, size_t n);
