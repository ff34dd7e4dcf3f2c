/* The NBD protocol's numbers, named as its proto.md names them.  All integers on the wire are
 * big-endian. */
#pragma once

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define NBD_MAGIC UINT64_C(0x4e42444d41474943)     /* "NBDMAGIC" */
#define NBD_OPT_MAGIC UINT64_C(0x49484156454f5054) /* "IHAVEOPT" */
#define NBD_REP_MAGIC UINT64_C(0x0003e889045565a9)
#define NBD_REQUEST_MAGIC UINT32_C(0x25609513)
#define NBD_EXTENDED_REQUEST_MAGIC UINT32_C(0x21e41c71)
#define NBD_SIMPLE_REPLY_MAGIC UINT32_C(0x67446698)
#define NBD_STRUCTURED_REPLY_MAGIC UINT32_C(0x668e33ef)
#define NBD_EXTENDED_REPLY_MAGIC UINT32_C(0x6e8a278c)

enum {
        NBD_FLAG_FIXED_NEWSTYLE = 1 << 0,
        NBD_FLAG_NO_ZEROES = 1 << 1,
        NBD_FLAG_C_FIXED_NEWSTYLE = 1 << 0,
        NBD_FLAG_C_NO_ZEROES = 1 << 1,
};

enum {
        NBD_FLAG_HAS_FLAGS = 1 << 0,
        NBD_FLAG_READ_ONLY = 1 << 1,
        NBD_FLAG_SEND_FLUSH = 1 << 2,
        NBD_FLAG_SEND_FUA = 1 << 3,
        NBD_FLAG_SEND_TRIM = 1 << 5,
        NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6,
        NBD_FLAG_SEND_DF = 1 << 7,
        NBD_FLAG_CAN_MULTI_CONN = 1 << 8,
        NBD_FLAG_SEND_CACHE = 1 << 10,
        NBD_FLAG_SEND_FAST_ZERO = 1 << 11,
        NBD_FLAG_BLOCK_STAT_PAYLOAD = 1 << 12,
};

enum {
        NBD_OPT_EXPORT_NAME = 1,
        NBD_OPT_ABORT = 2,
        NBD_OPT_LIST = 3,
        NBD_OPT_STARTTLS = 5,
        NBD_OPT_INFO = 6,
        NBD_OPT_GO = 7,
        NBD_OPT_STRUCTURED_REPLY = 8,
        NBD_OPT_LIST_META_CONTEXT = 9,
        NBD_OPT_SET_META_CONTEXT = 10,
        NBD_OPT_EXTENDED_HEADERS = 11,
};

#define NBD_REP_ERR(n) (UINT32_C(1) << 31 | (n))
#define NBD_REP_ACK UINT32_C(1)
#define NBD_REP_SERVER UINT32_C(2)
#define NBD_REP_INFO UINT32_C(3)
#define NBD_REP_META_CONTEXT UINT32_C(4)
#define NBD_REP_ERR_UNSUP NBD_REP_ERR(1)
#define NBD_REP_ERR_POLICY NBD_REP_ERR(2)
#define NBD_REP_ERR_INVALID NBD_REP_ERR(3)
#define NBD_REP_ERR_TLS_REQD NBD_REP_ERR(5)
#define NBD_REP_ERR_UNKNOWN NBD_REP_ERR(6)
#define NBD_REP_ERR_SHUTDOWN NBD_REP_ERR(7)
#define NBD_REP_ERR_TOO_BIG NBD_REP_ERR(9)
#define NBD_REP_ERR_EXT_HEADER_REQD NBD_REP_ERR(10)

enum {
        NBD_INFO_EXPORT = 0,
        NBD_INFO_NAME = 1,
        NBD_INFO_DESCRIPTION = 2,
        NBD_INFO_BLOCK_SIZE = 3,
};

enum {
        NBD_CMD_READ = 0,
        NBD_CMD_WRITE = 1,
        NBD_CMD_DISC = 2,
        NBD_CMD_FLUSH = 3,
        NBD_CMD_TRIM = 4,
        NBD_CMD_CACHE = 5,
        NBD_CMD_WRITE_ZEROES = 6,
        NBD_CMD_BLOCK_STATUS = 7,
};

enum {
        NBD_CMD_FLAG_FUA = 1 << 0,
        NBD_CMD_FLAG_NO_HOLE = 1 << 1,
        NBD_CMD_FLAG_DF = 1 << 2,
        NBD_CMD_FLAG_REQ_ONE = 1 << 3,
        NBD_CMD_FLAG_FAST_ZERO = 1 << 4,
        NBD_CMD_FLAG_PAYLOAD_LEN = 1 << 5,
};

enum {
        NBD_REPLY_FLAG_DONE = 1 << 0,
        NBD_REPLY_TYPE_NONE = 0,
        NBD_REPLY_TYPE_OFFSET_DATA = 1,
        NBD_REPLY_TYPE_OFFSET_HOLE = 2,
        NBD_REPLY_TYPE_BLOCK_STATUS = 5,
        NBD_REPLY_TYPE_BLOCK_STATUS_EXT = 6,
        NBD_REPLY_TYPE_ERROR = 1 << 15 | 1,
        NBD_STATE_HOLE = 1,
        NBD_STATE_ZERO = 2,
        NBD_STATE_DIRTY = 1, /* of our own contexts, as QEMU's */
};

enum {
        NBD_EPERM = 1,
        NBD_EIO = 5,
        NBD_ENOMEM = 12,
        NBD_EINVAL = 22,
        NBD_ENOSPC = 28,
        NBD_ENOTSUP = 95,
};

enum {
        NBD_OPTION_SIZE = 16,           /* magic 8, option 4, length 4 */
        NBD_REPHDR_SIZE = 20,           /* magic 8, option 4, type 4, length 4 */
        NBD_REQUEST_SIZE = 28,          /* magic 4, flags 2, type 2, cookie 8, offset 8, length 4 */
        NBD_EXTENDED_REQUEST_SIZE = 32, /* the same, length 8 */
        NBD_SIMPLE_SIZE = 16,           /* magic 4, error 4, cookie 8 */
        NBD_CHUNK_SIZE = 20,            /* magic 4, flags 2, type 2, cookie 8, length 4 */
        NBD_EXTENDED_CHUNK_SIZE = 32,   /* magic 4, flags 2, type 2, cookie 8, offset 8, length 8 */
        NBD_STRING_MAX = 4096,
};

static inline uint16_t be16_get(const uint8_t *p)
{
        uint16_t v;

        memcpy(&v, p, 2);
        return be16toh(v);
}
static inline uint32_t be32_get(const uint8_t *p)
{
        uint32_t v;

        memcpy(&v, p, 4);
        return be32toh(v);
}
static inline uint64_t be64_get(const uint8_t *p)
{
        uint64_t v;

        memcpy(&v, p, 8);
        return be64toh(v);
}
/* Each puts a number and returns what follows it. */
static inline uint8_t *be16_put(uint8_t *p, uint16_t v)
{
        v = htobe16(v);
        memcpy(p, &v, 2);
        return p + 2;
}
static inline uint8_t *be32_put(uint8_t *p, uint32_t v)
{
        v = htobe32(v);
        memcpy(p, &v, 4);
        return p + 4;
}
static inline uint8_t *be64_put(uint8_t *p, uint64_t v)
{
        v = htobe64(v);
        memcpy(p, &v, 8);
        return p + 8;
}
