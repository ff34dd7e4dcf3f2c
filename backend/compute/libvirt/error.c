#include "backend/compute/libvirt/driver.h"

/* libvirt's codes that mean more than "it failed". */
static const struct {
        int virt;
        int code;
} codes[] = {
        {VIR_ERR_NO_DOMAIN, -ENOENT},          {VIR_ERR_NO_CONNECT, -ECONNREFUSED},
        {VIR_ERR_INVALID_CONN, -ECONNREFUSED}, {VIR_ERR_RPC, -ECONNREFUSED},
        {VIR_ERR_NO_MEMORY, -ENOMEM},          {VIR_ERR_AUTH_FAILED, -EACCES},
        {VIR_ERR_ACCESS_DENIED, -EACCES},      {VIR_ERR_OPERATION_TIMEOUT, -ETIMEDOUT},
        {VIR_ERR_XML_ERROR, -EINVAL},          {VIR_ERR_CONFIG_UNSUPPORTED, -ENOTSUP},
        {VIR_ERR_NO_SUPPORT, -ENOTSUP},
};

static int code_of(virErrorPtr v)
{
        for (size_t i = 0; i < ARRAY_SIZE(codes); i++)
                if (v->code == codes[i].virt)
                        return codes[i].code;
        /* The transport's own failures come as system errors: no socket, reset, time-out. */
        if (v->domain == VIR_FROM_RPC || v->domain == VIR_FROM_REMOTE)
                return -ECONNREFUSED;
        /* QEMU, when the NBD server of a disk went in the middle of its handshake. */
        if (v->message && strstr(v->message, "end-of-file before all data were read"))
                return -ECONNRESET;
        return -EIO;
}

int virt_error(virConnectPtr conn, struct err **e)
{
        virErrorPtr v = virGetLastError();
        _cleanup_free_ char *words = v && v->message ? strdup(v->message) : NULL;
        int code = v ? code_of(v) : -EIO;

        if (words) /* one phrase: QEMU's own output comes with newlines */
                for (char *p = words; *p; p++)
                        if (*p == '\n' || *p == '\r')
                                *p = p[1] ? ' ' : '\0';
        /* A call that was under way when the connection died fails in many ways. */
        if (conn && virConnectIsAlive(conn) == 0)
                code = -ECONNREFUSED;
        virResetLastError();
        return err_set(e, code, "libvirt: %s", words ? words : "unknown error");
}
