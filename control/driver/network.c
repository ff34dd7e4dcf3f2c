#include "control/driver/network.h"

char *network_device(char out[DEVICE_SIZE], enum net_device what, const char *id)
{
        size_t n = snprintf(out, DEVICE_SIZE, "sn%c", what);

        for (; *id && n < DEVICE_SIZE - 1; id++)
                if (*id != '-')
                        out[n++] = *id;
        out[n] = '\0';
        return out;
}

char *network_address(char out[ADDRESS_TEXT_SIZE], uint32_t a)
{
        snprintf(out, ADDRESS_TEXT_SIZE, "%u.%u.%u.%u", a >> 24, a >> 16 & 255, a >> 8 & 255,
                 a & 255);
        return out;
}

uint32_t network_mask(unsigned prefix)
{
        return prefix ? ~0u << (32 - prefix) : 0;
}
