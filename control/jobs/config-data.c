#include "control/jobs/config-data.h"

#include <arpa/inet.h>
#include <openssl/evp.h>
#include <sys/random.h>

#include "control/network.h"

enum { SEED = 512 };

static json_t *text(const char *s)
{
        return xcheck(json_string(s));
}

/* Metadata as the guest is to have it: without the newline that echo wrote. */
static json_t *meta_value(const char *s)
{
        size_t n = strlen(s);

        return json_stringn(s, n && s[n - 1] == '\n' ? n - 1 : n);
}

static const char *hostname(const struct object *o)
{
        const char *s = object_str(o, "hostname");

        return *s ? s : o->name;
}

/* For a guest that has no RNG, or boots before it. */
static json_t *random_seed(void)
{
        unsigned char raw[SEED], out[SEED / 3 * 4 + 8];
        size_t n = 0;

        while (n < sizeof(raw)) {
                ssize_t got = getrandom(raw + n, MIN(sizeof(raw) - n, (size_t)256), 0);

                if (got > 0)
                        n += got;
        }
        EVP_EncodeBlock(out, raw, sizeof(raw));
        return text((const char *)out);
}

static json_t *meta_data(const struct object *o)
{
        const char *key = object_str(o, "ssh_key"), *zone = object_str(o, "zone");
        json_t *root = json_object(), *meta = json_object();
        char id[ID_TEXT_SIZE];

        json_object_set_new(root, "uuid", text(id_text(id, o->id)));
        json_object_set_new(root, "name", text(o->name));
        json_object_set_new(root, "hostname", text(hostname(o)));
        json_object_set_new(root, "project_id", text(o->tenant->name));
        json_object_set_new(root, "availability_zone", text(*zone ? zone : "nova"));
        json_object_set_new(root, "launch_index", json_integer(0));
        json_object_set_new(root, "devices", json_array());
        json_object_set_new(root, "random_seed", random_seed());
        if (*key) {
                json_object_set_new(root, "public_keys", json_pack("{s:s}", "default", key));
                json_object_set_new(root, "keys",
                                    json_pack("[{s:s, s:s, s:s}]", "name", "default", "type", "ssh",
                                              "data", key));
        }
        for (unsigned i = 0; i < o->nmeta; i++)
                if (!streq(o->meta[i].key, "user_data"))
                        json_object_set_new(meta, o->meta[i].key, meta_value(o->meta[i].value));
        json_object_set_new(root, "meta", meta);
        return root;
}

static json_t *ec2_data(const struct object *o)
{
        const char *key = object_str(o, "ssh_key");
        json_t *root = json_object();
        char id[ID_TEXT_SIZE];
        bool first = true;

        json_object_set_new(root, "instance-id", text(id_text(id, o->id)));
        json_object_set_new(root, "hostname", text(hostname(o)));
        json_object_set_new(root, "local-hostname", text(hostname(o)));
        object_foreach_link (l, o)
                if (first && l->target->kind == &kind_port) {
                        json_object_set_new(root, "local-ipv4",
                                            text(object_str(l->target, "address")));
                        first = false;
                }
        if (*key)
                json_object_set_new(root, "public-keys",
                                    json_pack("{s:{s:s}}", "0", "openssh-key", key));
        return root;
}

/* --- network_data.json ----------------------------------------------------------------------- */

static void add_link(json_t *links, const char *name, const struct object *port)
{
        const uint64_t mtu = object_num(port->holder, "mtu");
        json_t *link = json_object();
        char id[ID_TEXT_SIZE];

        json_object_set_new(link, "id", text(name));
        json_object_set_new(link, "vif_id", text(id_text(id, port->id)));
        json_object_set_new(link, "type", text("phy"));
        json_object_set_new(link, "mtu", mtu ? json_integer(mtu) : json_null());
        json_object_set_new(link, "ethernet_mac_address", text(object_str(port, "mac")));
        json_array_append_new(links, link);
}

/* By DHCP where its subnet has that; else all that a guest needs is here. */
static void add_network(json_t *root, unsigned n, const char *link, const struct object *port,
                        const struct object *subnet)
{
        const char *cidr = object_str(subnet, "cidr"), *slash = strchr(cidr, '/');
        const char *gateway = object_str(subnet, "gateway");
        const unsigned prefix = slash ? (unsigned)strtoul(slash + 1, NULL, 10) : 32;
        struct in_addr mask = {htonl(prefix ? ~0u << (32 - prefix) : 0)};
        const bool dhcp = object_num(subnet, "dhcp");
        char id[ID_TEXT_SIZE], name[32], dotted[INET_ADDRSTRLEN];
        json_t *net = json_object(), *services = json_array(), *routes = json_array();

        snprintf(name, sizeof(name), "network%u", n);
        json_object_set_new(net, "id", text(name));
        json_object_set_new(net, "link", text(link));
        json_object_set_new(net, "network_id", text(id_text(id, port->holder->id)));
        json_object_set_new(net, "type", text(dhcp ? "ipv4_dhcp" : "ipv4"));
        if (*gateway)
                json_array_append_new(services,
                                      json_pack("{s:s, s:s}", "type", "dns", "address", gateway));
        if (!dhcp) {
                json_object_set_new(net, "ip_address", text(object_str(port, "address")));
                json_object_set_new(net, "netmask",
                                    text(inet_ntop(AF_INET, &mask, dotted, sizeof(dotted))));
                if (*gateway)
                        json_array_append_new(routes,
                                              json_pack("{s:s, s:s, s:s}", "network", "0.0.0.0",
                                                        "netmask", "0.0.0.0", "gateway", gateway));
                json_array_extend(json_object_get(root, "services"), services);
        }
        json_object_set_new(net, "routes", routes);
        json_object_set_new(net, "services", services);
        json_array_append_new(json_object_get(root, "networks"), net);
}

static json_t *network_data(struct control *c, const struct object *o)
{
        json_t *root = json_pack("{s:[], s:[], s:[]}", "links", "networks", "services");
        unsigned n = 0;

        object_foreach_link (l, o) {
                char tap[16], id[ID_TEXT_SIZE];
                struct object *subnet;

                if (l->target->kind != &kind_port || l->leaving)
                        continue;
                network_device(tap, NET_TAP, id_text(id, l->target->id));
                add_link(json_object_get(root, "links"), tap, l->target);
                subnet = port_subnet(c, l->target);
                if (subnet)
                        add_network(root, n++, tap, l->target, subnet);
        }
        return root;
}

/* --- the rest -------------------------------------------------------------------------------- */

/* A JSON object is the document itself; other text is for cloud-init alone. */
static json_t *vendor_data(const struct object *tenant)
{
        const char *s = object_str(tenant, "vendor_data");
        json_t *v = *s == '{' ? json_loads(s, 0, NULL) : NULL;

        if (!v && *s)
                v = json_pack("{s:s}", "cloud-init", s);
        return v ? v : json_object();
}

void config_data_get(struct control *c, const struct object *o, struct config_data *ret)
{
        const struct meta *user = object_meta(o, "user_data");

        *ret = (struct config_data){.meta = meta_data(o),
                                    .network = network_data(c, o),
                                    .vendor = vendor_data(o->tenant),
                                    .ec2 = ec2_data(o),
                                    .user_data = user ? xstrdup(user->value) : NULL};
}

void config_data_done(struct config_data *d)
{
        json_decref(d->meta);
        json_decref(d->network);
        json_decref(d->vendor);
        json_decref(d->ec2);
        free(d->user_data);
        *d = (struct config_data){};
}
