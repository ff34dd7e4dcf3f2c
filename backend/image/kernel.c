/* Kernels that QEMU boots directly on x86: bzImage (Linux, Documentation/x86/boot.rst) and ELF. */
#include "backend/image/detect.h"

#include <elf.h>
#include <inttypes.h>

enum {
        SETUP_SECTS = 0x1f1,
        SYSSIZE = 0x1f4, /* in 16 bytes */
        HDRS = 0x202,
        VERSION = 0x206,
        SETUP_SIZE = 0x210,
        SEGMENTS_MAX = 128,
};

static int bzimage_parse(const struct image_input *in, const uint8_t *h, struct err **e)
{
        uint64_t setup = (h[SETUP_SECTS] ? h[SETUP_SECTS] : 4) + 1;

        if (get_le16(h + VERSION) < 0x0200)
                return err_set(e, -EINVAL, "kernel boot protocol %#x is not offered",
                               get_le16(h + VERSION));
        return input_want(in, setup * 512, (uint64_t)get_le32(h + SYSSIZE) * 16, "kernel", e);
}

static int elf_segments_check(const struct image_input *in, const uint8_t *h, bool wide,
                              struct err **e)
{
        uint64_t off = wide ? get_le64(h + offsetof(Elf64_Ehdr, e_phoff))
                            : get_le32(h + offsetof(Elf32_Ehdr, e_phoff));
        unsigned n = get_le16(
                h + (wide ? offsetof(Elf64_Ehdr, e_phnum) : offsetof(Elf32_Ehdr, e_phnum)));
        size_t size = wide ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);

        if (n == 0 || n > SEGMENTS_MAX)
                return err_set(e, -EINVAL, "ELF file has %u segments: it is no kernel", n);
        for (unsigned i = 0; i < n; i++) {
                uint8_t p[sizeof(Elf64_Phdr)];
                int r = input_want(in, off, (uint64_t)n * size, "ELF program header", e);

                if (r < 0)
                        return r;
                r = input_read(in, p, size, off + i * size, "ELF program header", e);
                if (r < 0)
                        return r;
                r = wide ? input_want(in, get_le64(p + offsetof(Elf64_Phdr, p_offset)),
                                      get_le64(p + offsetof(Elf64_Phdr, p_filesz)), "ELF segment",
                                      e)
                         : input_want(in, get_le32(p + offsetof(Elf32_Phdr, p_offset)),
                                      get_le32(p + offsetof(Elf32_Phdr, p_filesz)), "ELF segment",
                                      e);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int elf_parse(const struct image_input *in, const uint8_t *h, struct err **e)
{
        uint16_t machine = get_le16(h + offsetof(Elf64_Ehdr, e_machine));

        if (h[EI_DATA] != ELFDATA2LSB || (machine != EM_386 && machine != EM_X86_64))
                return err_set(e, -EINVAL, "ELF file is for another machine (%u): kernels are x86",
                               machine);
        if (h[EI_CLASS] != ELFCLASS32 && h[EI_CLASS] != ELFCLASS64)
                return err_set(e, -EINVAL, "ELF class %u is not valid", h[EI_CLASS]);
        return elf_segments_check(in, h, h[EI_CLASS] == ELFCLASS64, e);
}

int kernel_parse(const struct image_input *in, struct image_header *ret, struct err **e)
{
        uint8_t h[SETUP_SIZE];
        int r = input_peek(in, h, sizeof(h), 0, e);

        if (r < 0)
                return r;
        r = memcmp(h + HDRS, "HdrS", 4) == 0 ? bzimage_parse(in, h, e) : elf_parse(in, h, e);
        if (r < 0)
                return r;
        ret->format = IMAGE_AKI;
        ret->virtual_size = in->size;
        return 0;
}
