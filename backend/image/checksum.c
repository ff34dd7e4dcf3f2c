#include <fcntl.h>
#include <openssl/evp.h>
#include "backend/image/files.h"
#include "common/fileio.h"

enum { CHUNK = 1 << 20 };

DEFINE_CLEANUP(EVP_MD_CTX *, EVP_MD_CTX_free)

static int digest(int fd, uint64_t size, EVP_MD_CTX *ctx, const struct image_progress *p,
                  struct err **e)
{
        _cleanup_free_ uint8_t *chunk = malloc(CHUNK);

        if (!chunk)
                return err_errno(e, -ENOMEM, "checksum");
        for (uint64_t done = 0; done < size;) {
                size_t n = MIN(size - done, (uint64_t)CHUNK);
                int r = pread_full(fd, chunk, n, done);

                if (r < 0)
                        return err_errno(e, r, "checksum");
                if (!EVP_DigestUpdate(ctx, chunk, n))
                        return err_set(e, -EIO, "checksum: SHA-256 failed");
                done += n;
                r = p && p->report ? p->report(p->arg, done, size) : 0;
                if (r < 0)
                        return err_errno(e, r, "checksum");
        }
        return 0;
}

int image_checksum(struct image_service *s, const char *id, char ret[65],
                   const struct image_progress *p, struct err **e)
{
        _cleanup_(EVP_MD_CTX_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
        _cleanup_close_ int fd = -1;
        uint8_t sum[EVP_MAX_MD_SIZE];
        uint64_t size;
        int r = image_upload_open(image_files(s), id, O_RDONLY, &fd, &size, e);

        if (r < 0)
                return r;
        if (!ctx || !EVP_DigestInit_ex(ctx, EVP_sha256(), NULL))
                return err_set(e, -ENOMEM, "checksum: SHA-256 is not to be had");
        posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
        r = digest(fd, size, ctx, p, e);
        if (r < 0)
                return r;
        if (!EVP_DigestFinal_ex(ctx, sum, NULL))
                return err_set(e, -EIO, "checksum: SHA-256 failed");
        for (int i = 0; i < 32; i++)
                snprintf(ret + i * 2, 3, "%02x", sum[i]);
        return 0;
}
