#include "control/driver/image.h"

#include "common/macro.h"

static const char *const names[] = {
        [IMAGE_RAW] = "raw", [IMAGE_QCOW2] = "qcow2", [IMAGE_VMDK] = "vmdk",
        [IMAGE_VDI] = "vdi", [IMAGE_VHD] = "vhd",     [IMAGE_ISO] = "iso",
        [IMAGE_AKI] = "aki", [IMAGE_ARI] = "ari",     [IMAGE_AMI] = "ami",
        [IMAGE_TAR] = "tar",
};

const char *image_format_name(enum image_format f)
{
        return (size_t)f < ARRAY_SIZE(names) && names[f] ? names[f] : "unknown";
}

enum image_format image_format_parse(const char *name)
{
        for (size_t i = 0; name && i < ARRAY_SIZE(names); i++)
                if (names[i] && streq(names[i], name))
                        return (enum image_format)i;
        return IMAGE_UNKNOWN;
}

bool image_format_bootable(enum image_format f)
{
        return f != IMAGE_UNKNOWN && f != IMAGE_AKI && f != IMAGE_ARI && f != IMAGE_TAR;
}
