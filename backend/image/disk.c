/* Raw disks: partition tables (MBR; GPT as in UEFI 2.10, chapter 5) and file systems that fill the
 * image.  All numbers are little-endian. */
#include "backend/image/detect.h"

#include <inttypes.h>

enum {
        MBR_SIZE = 512,
        MBR_TABLE = 446,
        MBR_ENTRY = 16,
        MBR_PROTECTIVE = 0xee,
        GPT_HEADER = 92,
        GPT_ENTRY_MIN = 128,
        GPT_ENTRIES_MAX = 1024,
};

/* A boot sector of a file system carries the MBR's signature too. */
static bool is_boot_sector(const uint8_t *s)
{
        return memcmp(s + 3, "NTFS    ", 8) == 0 || memcmp(s + 3, "EXFAT   ", 8) == 0 ||
               memcmp(s + 54, "FAT", 3) == 0 || memcmp(s + 82, "FAT32", 5) == 0;
}

static bool mbr_valid(const uint8_t *s)
{
        unsigned used = 0;

        if (s[510] != 0x55 || s[511] != 0xaa || is_boot_sector(s))
                return false;
        for (int i = 0; i < 4; i++) {
                const uint8_t *p = s + MBR_TABLE + i * MBR_ENTRY;

                if (p[0] != 0 && p[0] != 0x80)
                        return false;
                used += p[4] != 0 && get_le32(p + 12) != 0;
        }
        return used > 0;
}

static int past_end(const char *what, uint64_t i, uint64_t end, uint64_t size, struct err **e)
{
        return err_set(e, -EINVAL,
                       "image is truncated: %s %" PRIu64 " ends at byte %" PRIu64
                       ", the file at %" PRIu64,
                       what, i, end, size);
}

/* Sector `lba` ends at byte (lba + 1) * sector; saturates. */
static uint64_t sector_end(uint64_t lba, uint32_t sector)
{
        return lba >= INT64_MAX / sector ? INT64_MAX : (lba + 1) * sector;
}

static int gpt_entries_check(const struct image_input *in, const uint8_t *h, uint32_t sector,
                             struct err **e)
{
        static const uint8_t unused[16];
        uint64_t off = sector_end(get_le64(h + 72), sector) - sector;
        uint32_t n = get_le32(h + 80), size = get_le32(h + 84);

        if (size < GPT_ENTRY_MIN || size > 4096 || size % 8 || n > GPT_ENTRIES_MAX)
                return err_set(e, -EINVAL, "GPT with %u entries of %u bytes is not valid", n, size);
        for (uint32_t i = 0; i < n; i++) {
                uint8_t p[GPT_ENTRY_MIN];
                uint64_t end;
                int r = input_read(in, p, sizeof(p), off + (uint64_t)i * size, "GPT entry", e);

                if (r < 0)
                        return r;
                end = sector_end(get_le64(p + 40), sector);
                if (memcmp(p, unused, sizeof(unused)) != 0 && end > in->size)
                        return past_end("GPT partition", i + 1, end, in->size, e);
        }
        return 0;
}

static int gpt_check(const struct image_input *in, bool *found, struct err **e)
{
        static const uint32_t sectors[] = {512, 4096};

        for (size_t i = 0; i < ARRAY_SIZE(sectors); i++) {
                uint8_t h[GPT_HEADER];
                uint64_t end;
                int r = input_peek(in, h, sizeof(h), sectors[i], e);

                if (r < 0)
                        return r;
                if (memcmp(h, "EFI PART", 8) != 0)
                        continue;
                *found = true;
                end = sector_end(get_le64(h + 32), sectors[i]);
                if (end > in->size)
                        return err_set(e, -EINVAL,
                                       "image is truncated: the backup GPT ends at byte %" PRIu64
                                       ", the file at %" PRIu64,
                                       end, in->size);
                return gpt_entries_check(in, h, sectors[i], e);
        }
        return 0;
}

int partitions_check(const struct image_input *in, bool *ret_found, struct err **e)
{
        bool protective = false, gpt = false;
        uint8_t s[MBR_SIZE];
        int r = input_peek(in, s, sizeof(s), 0, e);

        *ret_found = false;
        if (r < 0 || !mbr_valid(s))
                return r;
        *ret_found = true;
        for (int i = 0; i < 4; i++)
                protective |= s[MBR_TABLE + i * MBR_ENTRY + 4] == MBR_PROTECTIVE;
        if (protective && (r = gpt_check(in, &gpt, e)) < 0)
                return r;
        if (gpt)
                return 0; /* the MBR beside it only says that the disk is taken */
        if (protective)
                return input_want(in, 512, 512, "GPT header", e);
        for (unsigned i = 0; i < 4; i++) {
                const uint8_t *p = s + MBR_TABLE + i * MBR_ENTRY;
                uint64_t end = ((uint64_t)get_le32(p + 8) + get_le32(p + 12)) * 512;

                if (p[4] != 0 && end > in->size)
                        return past_end("partition", i + 1, end, in->size, e);
        }
        return 0;
}

static int filesystem_end(const struct image_input *in, const char *name, uint64_t blocks,
                          uint64_t block, struct err **e)
{
        if (block == 0 || blocks > in->size / block)
                return err_set(e, -EINVAL,
                               "image is truncated: the %s file system has %" PRIu64
                               " blocks of %" PRIu64 " bytes, the file %" PRIu64 " bytes",
                               name, blocks, block, in->size);
        return 0;
}

int filesystem_check(const struct image_input *in, const char **ret_name, struct err **e)
{
        uint8_t s[1024];
        int r = input_peek(in, s, sizeof(s), 0, e);

        *ret_name = NULL;
        if (r < 0)
                return r;
        if (memcmp(s, "XFSB", 4) == 0) {
                *ret_name = "XFS";
                return filesystem_end(in, *ret_name, get_be64(s + 8), get_be32(s + 4), e);
        }
        r = input_peek(in, s, sizeof(s), 1024, e);
        if (r < 0)
                return r;
        if (get_le16(s + 0x38) == 0xef53 && get_le32(s + 0x18) <= 6) {
                bool wide = get_le32(s + 0x60) & 0x80; /* INCOMPAT_64BIT */
                uint64_t high = wide ? get_le32(s + 0x150) : 0;

                *ret_name = "ext";
                return filesystem_end(in, *ret_name, high << 32 | get_le32(s + 4),
                                      1024ULL << get_le32(s + 0x18), e);
        }
        r = input_peek(in, s, sizeof(s), 0x10000, e);
        if (r < 0)
                return r;
        if (memcmp(s + 0x40, "_BHRfS_M", 8) == 0) {
                *ret_name = "btrfs";
                return filesystem_end(in, *ret_name, get_le64(s + 0x70), 1, e);
        }
        return 0;
}
