/* What a person in front of the machine could do: keys, the button for a dump, more processors. */
#include "backend/compute/libvirt/driver.h"

#include <jansson.h>

/* The argument of QEMU's send-key, which knows keys by name. */
static json_t *key_list(const char *keys)
{
        json_t *list = json_array();

        while (*(keys += strspn(keys, " "))) {
                size_t n = strcspn(keys, " ");

                json_array_append_new(list,
                                      json_pack("{s:s, s:s%}", "type", "qcode", "data", keys, n));
                keys += n;
        }
        return json_pack("{s:o}", "keys", list);
}

int op_keys(struct compute *c, const char *uuid, const char *keys, struct err **e)
{
        _cleanup_conn_ virConnectPtr conn = NULL;
        _cleanup_dom_ virDomainPtr dom = NULL;
        int r = guest_find(c, uuid, &conn, &dom, e);

        return r < 0 ? r : monitor(dom, "send-key", key_list(keys), e);
}

int op_nmi(struct compute *c, const char *uuid, struct err **e)
{
        _cleanup_conn_ virConnectPtr conn = NULL;
        _cleanup_dom_ virDomainPtr dom = NULL;
        int r = guest_find(c, uuid, &conn, &dom, e);

        if (r == 0 && virDomainInjectNMI(dom, 0) < 0)
                r = guest_failed(conn, dom, uuid, e);
        return r;
}

int op_set_vcpus(struct compute *c, const char *uuid, unsigned vcpus, struct err **e)
{
        _cleanup_conn_ virConnectPtr conn = NULL;
        _cleanup_dom_ virDomainPtr dom = NULL;
        int r = guest_find(c, uuid, &conn, &dom, e);

        if (r == 0 && virDomainSetVcpusFlags(dom, vcpus, VIR_DOMAIN_AFFECT_LIVE) < 0)
                r = guest_failed(conn, dom, uuid, e);
        return r;
}
