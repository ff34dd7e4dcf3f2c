#include "control/driver/network.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

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

char *network_address6(char out[ADDRESS6_TEXT_SIZE], const struct in6_addr *a)
{
        inet_ntop(AF_INET6, a, out, ADDRESS6_TEXT_SIZE);
        return out;
}

bool network_some6(const struct in6_addr *a)
{
        return !IN6_IS_ADDR_UNSPECIFIED(a);
}

bool network_eui64(struct in6_addr *ret, const struct in6_addr *net, const char *mac)
{
        uint8_t m[6];

        if (sscanf(mac, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx", &m[0], &m[1], &m[2], &m[3], &m[4],
                   &m[5]) != 6)
                return false;
        *ret = *net;
        memcpy(ret->s6_addr + 8, (uint8_t[]){m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]},
               8);
        return true;
}

bool network_has(const struct net_network *w, uint32_t address)
{
        for (unsigned i = 0; i < w->nsubnets; i++)
                if ((address & network_mask(w->subnets[i].prefix)) == w->subnets[i].address)
                        return true;
        return false;
}
