#include "backend/volume/crypt/xts.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <stdbool.h>

#include "common/macro.h"

enum {
        IDLE = 16, /* contexts kept, each with its key schedule */
        PIECES = XTS_SECTOR / XTS_PIECE,
        ALL_PIECES = (1 << PIECES) - 1,
};

struct context {
        EVP_CIPHER_CTX *evp[2]; /* decrypts, encrypts */
};

struct xts {
        pthread_mutex_t lock;
        EVP_CIPHER *cipher;
        struct context idle[IDLE];
        unsigned n;
        uint8_t key[XTS_KEY];
};

static void context_free(struct context *c)
{
        EVP_CIPHER_CTX_free(c->evp[0]);
        EVP_CIPHER_CTX_free(c->evp[1]);
}

static int context_new(struct xts *x, struct context *ret)
{
        for (int enc = 0; enc < 2; enc++)
                ret->evp[enc] = EVP_CIPHER_CTX_new();
        if (!ret->evp[0] || !ret->evp[1]) {
                context_free(ret);
                return -ENOMEM;
        }
        for (int enc = 0; enc < 2; enc++)
                if (EVP_CipherInit_ex2(ret->evp[enc], x->cipher, x->key, NULL, enc, NULL) != 1) {
                        context_free(ret);
                        return -EINVAL;
                }
        return 0;
}

static int context_take(struct xts *x, struct context *ret)
{
        bool found;

        pthread_mutex_lock(&x->lock);
        found = x->n > 0;
        if (found)
                *ret = x->idle[--x->n];
        pthread_mutex_unlock(&x->lock);
        return found ? 0 : context_new(x, ret);
}

static void context_return(struct xts *x, struct context *c)
{
        bool kept;

        pthread_mutex_lock(&x->lock);
        kept = x->n < IDLE;
        if (kept)
                x->idle[x->n++] = *c;
        pthread_mutex_unlock(&x->lock);
        if (!kept)
                context_free(c);
}

int xts_new(const uint8_t key[XTS_KEY], struct xts **ret)
{
        struct xts *x = calloc(1, sizeof(*x));
        struct context c;
        int r;

        if (!x)
                return -ENOMEM;
        pthread_mutex_init(&x->lock, NULL);
        memcpy(x->key, key, XTS_KEY);
        x->cipher = EVP_CIPHER_fetch(NULL, "AES-256-XTS", NULL);
        r = x->cipher ? context_new(x, &c) : -ENOTSUP;
        if (r < 0) {
                xts_free(x);
                return r;
        }
        context_return(x, &c);
        *ret = x;
        return 0;
}

struct xts *xts_free(struct xts *x)
{
        if (x) {
                while (x->n > 0)
                        context_free(&x->idle[--x->n]);
                EVP_CIPHER_free(x->cipher);
                pthread_mutex_destroy(&x->lock);
                explicit_bzero(x->key, sizeof(x->key));
                free(x);
        }
        return NULL;
}

/* EVP has no call for several tweaks: one for each sector. */
static int sector(EVP_CIPHER_CTX *evp, uint8_t *out, const uint8_t *in, uint64_t off)
{
        uint8_t tweak[16] = {};
        int n;

        for (int i = 0; i < 8; i++)
                tweak[i] = off / 512 >> (8 * i);
        if (EVP_CipherInit_ex2(evp, NULL, NULL, tweak, -1, NULL) != 1 ||
            EVP_CipherUpdate(evp, out, &n, in, XTS_SECTOR) != 1 || n != XTS_SECTOR)
                return -EIO;
        return 0;
}

/* Of the sector's pieces, which are holes: a bit each. */
static unsigned holes(const uint8_t *p)
{
        static const uint8_t zero[16];
        unsigned mask = 0;

        for (unsigned i = 0; i < PIECES; i++, p += XTS_PIECE)
                if (memcmp(p, zero, 16) == 0 && memcmp(p, p + 16, XTS_PIECE - 16) == 0)
                        mask |= 1u << i;
        return mask;
}

int xts_encrypt(struct xts *x, void *out, const void *in, size_t n, uint64_t off)
{
        struct context c;
        int r = context_take(x, &c);

        if (r < 0)
                return r;
        for (size_t at = 0; at < n && r == 0; at += XTS_SECTOR)
                r = sector(c.evp[1], (uint8_t *)out + at, (const uint8_t *)in + at, off + at);
        context_return(x, &c);
        return r;
}

int xts_decrypt(struct xts *x, void *p, size_t n, uint64_t off)
{
        struct context c;
        int r = context_take(x, &c);

        if (r < 0)
                return r;
        for (size_t at = 0; at < n && r == 0; at += XTS_SECTOR) {
                uint8_t *s = (uint8_t *)p + at;

                unsigned mask = holes(s);

                if (mask != ALL_PIECES)
                        r = sector(c.evp[0], s, s, off + at);
                for (unsigned i = 0; mask != ALL_PIECES && mask >> i; i++)
                        if (mask >> i & 1)
                                memset(s + i * XTS_PIECE, 0, XTS_PIECE);
        }
        context_return(x, &c);
        return r;
}
