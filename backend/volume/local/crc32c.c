/* CRC-32C (Castagnoli): by the CPU's instruction where it has one, else eight bytes at a time with
 * tables that are made when they are first needed. */
#include "backend/volume/local/maplog.h"

#include <endian.h>

static uint32_t table[8][256];
static pthread_once_t table_made = PTHREAD_ONCE_INIT;

static void table_make(void)
{
        for (uint32_t i = 0; i < 256; i++) {
                uint32_t c = i;

                for (int k = 0; k < 8; k++)
                        c = c >> 1 ^ (c & 1 ? 0x82f63b78 : 0);
                table[0][i] = c;
        }
        for (uint32_t i = 0; i < 256; i++)
                for (int k = 1; k < 8; k++)
                        table[k][i] = table[k - 1][i] >> 8 ^ table[0][table[k - 1][i] & 255];
}

static uint32_t by_table(uint32_t crc, const uint8_t *p, size_t n)
{
        pthread_once(&table_made, table_make);
        for (; n >= 8; p += 8, n -= 8) {
                uint64_t v;

                memcpy(&v, p, 8);
                v = le64toh(v) ^ crc;
                crc = 0;
                for (int k = 0; k < 8; k++)
                        crc ^= table[7 - k][v >> 8 * k & 255];
        }
        for (; n > 0; p++, n--)
                crc = crc >> 8 ^ table[0][(crc ^ *p) & 255];
        return crc;
}

#ifdef __x86_64__
__attribute__((target("sse4.2"))) static uint32_t by_cpu(uint32_t crc, const uint8_t *p, size_t n)
{
        uint64_t c = crc;

        for (; n >= 8; p += 8, n -= 8) {
                uint64_t v;

                memcpy(&v, p, 8);
                c = __builtin_ia32_crc32di(c, v);
        }
        for (; n > 0; p++, n--)
                c = __builtin_ia32_crc32qi((uint32_t)c, *p);
        return c;
}
#endif

uint32_t crc32c(uint32_t crc, const void *p, size_t n)
{
#ifdef __x86_64__
        if (__builtin_cpu_supports("sse4.2"))
                return ~by_cpu(~crc, p, n);
#endif
        return ~by_table(~crc, p, n);
}
