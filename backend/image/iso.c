/* ISO 9660 (ECMA-119): the primary volume descriptor in sector 16 says how long the volume is. */
#include "backend/image/detect.h"

#include <inttypes.h>

enum { DESCRIPTOR_OFF = 32768, DESCRIPTOR_SIZE = 2048, DESCRIPTORS_MAX = 32, TYPE_PRIMARY = 1 };

int iso_parse(const struct image_input *in, struct image_header *ret, struct err **e)
{
        for (int i = 0; i < DESCRIPTORS_MAX; i++) {
                uint64_t off = DESCRIPTOR_OFF + (uint64_t)i * DESCRIPTOR_SIZE, bytes;
                uint8_t d[DESCRIPTOR_SIZE];
                int r = input_read(in, d, sizeof(d), off, "ISO 9660 volume descriptor", e);

                if (r < 0)
                        return r;
                if (memcmp(d + 1, "CD001", 5) != 0 || d[0] == 255)
                        break;
                if (d[0] != TYPE_PRIMARY)
                        continue;
                bytes = (uint64_t)get_le32(d + 80) * get_le16(d + 128);
                if (bytes > in->size)
                        return err_set(e, -EINVAL,
                                       "image is truncated: the ISO 9660 volume has %" PRIu64
                                       " bytes, the file %" PRIu64,
                                       bytes, in->size);
                ret->format = IMAGE_ISO;
                ret->virtual_size = in->size;
                return 0;
        }
        return err_set(e, -EINVAL, "ISO 9660 image has no primary volume descriptor");
}
