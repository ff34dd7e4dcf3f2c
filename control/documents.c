#include "control/documents.h"

#include <jansson.h>

#include "common/jsonl.h"
#include <openssl/evp.h>
#include <sys/random.h>

#include "common/bundle.h"
#include "control/network.h"

enum { SEED = 512 };

static void add_text(struct buf *out, const char *name, const char *text)
{
        bundle_add(out, name, text, strlen(text));
}

/* Takes v. */
static void add_json(struct buf *out, const char *name, json_t *v)
{
        _cleanup_free_ char *text = xcheck(json_text(v, JSON_INDENT(1) | JSON_SORT_KEYS));

        json_decref(v);
        add_text(out, name, text);
}

static const char *hostname(const struct object *o)
{
        const char *host = object_str(o, "hostname");

        return *host ? host : o->name;
}

/* Metadata as the guest is to have it: without the newline that echo wrote. */
static json_t *meta_value(const char *text)
{
        size_t n = strlen(text);

        return json_stringn(text, n && text[n - 1] == '\n' ? n - 1 : n);
}

/* Some metadata is not for itself: it is a document. */
static bool is_document(const char *key)
{
        return streq(key, "user_data") || streq(key, "vendor_data");
}

/* --- OpenStack's form ------------------------------------------------------------------------ */

static json_t *meta_data(const struct object *o)
{
        const char *key = object_str(o, "ssh_key"), *zone = object_str(o, "zone");
        json_t *root = json_object(), *meta = json_object();
        char id[ID_TEXT_SIZE];

        json_object_set_new(root, "uuid", json_string(id_text(id, o->id)));
        json_object_set_new(root, "name", json_string(o->name));
        json_object_set_new(root, "hostname", json_string(hostname(o)));
        json_object_set_new(root, "project_id", json_string(o->tenant->name));
        json_object_set_new(root, "availability_zone", json_string(*zone ? zone : "nova"));
        json_object_set_new(root, "launch_index", json_integer(0));
        json_object_set_new(root, "devices", json_array());
        if (*key) {
                json_object_set_new(root, "public_keys", json_pack("{s:s}", "default", key));
                json_object_set_new(root, "keys",
                                    json_pack("[{s:s, s:s, s:s}]", "name", "default", "type", "ssh",
                                              "data", key));
        }
        for (unsigned i = 0; i < o->nmeta; i++)
                if (!is_document(o->meta[i].key))
                        json_object_set_new(meta, o->meta[i].key, meta_value(o->meta[i].value));
        json_object_set_new(root, "meta", meta);
        return root;
}

static void add_services(json_t *services, const struct object *subnet)
{
        const char *dns = object_str(subnet, "dns"), *w;
        size_t n;

        if (object_num(subnet, "dhcp")) /* which says who knows the names of the network */
                return;
        while ((w = word_next(&dns, &n)))
                json_array_append_new(services,
                                      json_pack("{s:s, s:s%}", "type", "dns", "address", w, n));
}

static json_t *network_of(const struct object *port, const struct object *subnet, const char *link)
{
        const char *cidr = object_str(subnet, "cidr"), *gateway = object_str(subnet, "gateway");
        bool dhcp = object_num(subnet, "dhcp");
        char id[ID_TEXT_SIZE], mask[ADDRESS_TEXT_SIZE];
        unsigned prefix = 0;
        uint32_t a;
        json_t *n = json_pack("{s:s+, s:s, s:s, s:s}", "id", link, "-v4", "type",
                              dhcp ? "ipv4_dhcp" : "ipv4", "link", link, "network_id",
                              id_text(id, port->holder->id));

        if (dhcp)
                return n;
        cidr_parse(cidr, strlen(cidr), &a, &prefix, NULL);
        network_address(mask, network_mask(prefix));
        json_object_set_new(n, "ip_address", json_string(object_str(port, "address")));
        json_object_set_new(n, "netmask", json_string(mask));
        json_object_set_new(n, "routes",
                            *gateway ? json_pack("[{s:s, s:s, s:s}]", "network", "0.0.0.0",
                                                 "netmask", "0.0.0.0", "gateway", gateway)
                                     : json_array());
        return n;
}

/* What the port has of IPv6; NULL: nothing. */
static json_t *network6_of(struct control *c, const struct object *port, const char *link)
{
        struct collection *l = model_collection(c, port->holder, &kind_subnet);
        const char *text = object_str(port, "address6"), *type = NULL;
        struct in6_addr a, net;
        char id[ID_TEXT_SIZE];
        unsigned prefix;
        json_t *n;

        for (size_t i = 0; address6_parse(text, strlen(text), &a) && l && i < l->n && !type; i++) {
                const char *cidr = object_str(l->v[i], "cidr"), *mode = object_str(l->v[i], "ipv6");

                if (cidr6_parse(cidr, strlen(cidr), &net, &prefix) && memcmp(&a, &net, 8) == 0)
                        type = streq(mode, "dhcp")   ? "ipv6_dhcpv6-stateful"
                               : streq(mode, "none") ? "ipv6"
                                                     : "ipv6_slaac";
        }
        if (!type)
                return NULL;
        n = json_pack("{s:s+, s:s, s:s, s:s}", "id", link, "-v6", "type", type, "link", link,
                      "network_id", id_text(id, port->holder->id));
        if (streq(type, "ipv6")) {
                json_object_set_new(n, "ip_address", json_string(text));
                json_object_set_new(n, "netmask", json_string("ffff:ffff:ffff:ffff::"));
        }
        return n;
}

static json_t *network_data(struct control *c, const struct object *o)
{
        json_t *links = json_array(), *networks = json_array(), *services = json_array();
        int def = kind_link(o->kind, "networks");

        object_foreach_link (l, o) {
                const struct object *port = l->target, *subnet;
                char id[ID_TEXT_SIZE], device[DEVICE_SIZE];
                json_t *six;

                if ((int)l->def != def || port->kind != &kind_port || l->leaving)
                        continue;
                network_device(device, NET_TAP, id_text(id, port->id));
                json_array_append_new(links,
                                      json_pack("{s:s, s:s, s:s, s:I, s:s}", "id", device, "vif_id",
                                                id, "type", "tap", "mtu",
                                                (json_int_t)object_num(port->holder, "mtu"),
                                                "ethernet_mac_address", object_str(port, "mac")));
                subnet = port_subnet(c, port);
                if (subnet) {
                        json_array_append_new(networks, network_of(port, subnet, device));
                        add_services(services, subnet);
                }
                six = network6_of(c, port, device);
                if (six)
                        json_array_append_new(networks, six);
        }
        return json_pack("{s:o, s:o, s:o}", "links", links, "networks", networks, "services",
                         services);
}

/* The instance's own, else its tenant's.  A JSON object is the document itself; other text is for
 * cloud-init alone. */
static json_t *vendor_data(const struct object *o)
{
        const struct meta *m = object_meta(o, "vendor_data");
        const char *text = m ? m->value : object_str(o->tenant, "vendor_data");
        json_t *v = *text == '{' ? json_loads(text, 0, NULL) : NULL;

        if (!v && *text)
                v = json_pack("{s:s}", "cloud-init", text);
        return v ? v : json_object();
}

static void add_openstack(struct control *c, const struct object *o, json_t *meta, struct buf *out)
{
        const struct meta *user = object_meta(o, "user_data");

        add_json(out, "openstack/latest/meta_data.json", meta);
        add_json(out, "openstack/latest/network_data.json", network_data(c, o));
        if (user)
                add_text(out, "openstack/latest/user_data", user->value);
        add_json(out, "openstack/latest/vendor_data.json", vendor_data(o));
        add_json(out, "openstack/latest/vendor_data2.json", json_object());
}

/* --- EC2's form ------------------------------------------------------------------------------ */

static void ec2(struct buf *out, const char *name, const char *text)
{
        char path[256];

        snprintf(path, sizeof(path), "latest/meta-data/%s", name);
        add_text(out, path, text);
}

static void instance_id(char out[24], const struct object *o)
{
        snprintf(out, 24, "i-%08llx", (unsigned long long)o->no);
}

static const struct object *first_port(const struct object *o)
{
        struct link *l = object_link(o, kind_link(o->kind, "networks"), NULL);

        return l && l->target->kind == &kind_port ? l->target : NULL;
}

static const char *public_address(const struct object *o)
{
        const struct object *from[] = {first_port(o), o};

        for (unsigned k = 0; k < ARRAY_SIZE(from); k++)
                for (unsigned i = 0; from[k] && i < from[k]->nrefs; i++)
                        if (from[k]->refs[i]->kind == &kind_floating_ip)
                                return object_str(from[k]->refs[i], "address");
        return "";
}

/* Of the device with that MAC. */
static void device(struct buf *out, const char *mac, const char *what, const char *text)
{
        char name[128];

        snprintf(name, sizeof(name), "network/interfaces/macs/%s/%s", mac, what);
        ec2(out, name, text);
}

static void interfaces(struct control *c, const struct object *o, struct buf *out)
{
        int def = kind_link(o->kind, "networks");
        unsigned n = 0;

        object_foreach_link (l, o) {
                const struct object *port = l->target, *subnet;
                const char *mac, *six;
                char number[16];

                if ((int)l->def != def || port->kind != &kind_port)
                        continue;
                mac = object_str(port, "mac");
                six = object_str(port, "address6");
                snprintf(number, sizeof(number), "%u", n++);
                subnet = port_subnet(c, port);
                device(out, mac, "device-number", number);
                if (*six)
                        device(out, mac, "ipv6s", six);
                device(out, mac, "local-hostname", hostname(o));
                device(out, mac, "local-ipv4s", object_str(port, "address"));
                device(out, mac, "mac", mac);
                device(out, mac, "subnet-ipv4-cidr-block",
                       subnet ? object_str(subnet, "cidr") : "");
        }
}

static void add_groups(const struct object *o, struct buf *out)
{
        int def = kind_link(o->kind, "security_groups");
        _cleanup_buf_ struct buf names = {};

        object_foreach_link (l, o)
                if ((int)l->def == def)
                        buf_printf(&names, "%s%s", names.len ? "\n" : "", l->target->name);
        ec2(out, "security-groups", names.len ? buf_str(&names) : "default");
}

static void identity(const struct object *o, const char *address, struct buf *out)
{
        char id[24];

        instance_id(id, o);
        add_json(out, "latest/dynamic/instance-identity/document",
                 json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "version", "2017-09-30",
                           "instanceId", id, "instanceType", object_str(o, "flavor"), "privateIp",
                           address, "availabilityZone", object_str(o, "zone"), "region", "stratofs",
                           "accountId", o->tenant->name));
}

/* In the order of their names, as folders are listed. */
static void meta_data_ec2(struct control *c, const struct object *o, struct buf *out)
{
        const struct object *port = first_port(o), *image = object_target(o, "image");
        const char *key = object_str(o, "ssh_key"),
                   *address = port ? object_str(port, "address") : "";
        const char *public = public_address(o);
        char id[24], ami[ID_TEXT_SIZE + 4] = "ami-none", text[ID_TEXT_SIZE];

        instance_id(id, o);
        if (image)
                snprintf(ami, sizeof(ami), "ami-%.8s", id_text(text, image->id));
        identity(o, address, out);
        ec2(out, "ami-id", ami);
        ec2(out, "ami-launch-index", "0");
        ec2(out, "ami-manifest-path", "FIXED");
        ec2(out, "block-device-mapping/ami", "vda");
        ec2(out, "block-device-mapping/root", "/dev/vda");
        ec2(out, "hostname", hostname(o));
        ec2(out, "instance-action", "none");
        ec2(out, "instance-id", id);
        ec2(out, "instance-type", object_str(o, "flavor"));
        ec2(out, "local-hostname", hostname(o));
        ec2(out, "local-ipv4", address);
        ec2(out, "mac", port ? object_str(port, "mac") : "");
        interfaces(c, o, out);
        ec2(out, "placement/availability-zone", object_str(o, "zone"));
        ec2(out, "public-hostname", hostname(o));
        ec2(out, "public-ipv4", public);
        if (*key) {
                ec2(out, "public-keys/", "0=default");
                ec2(out, "public-keys/0/openssh-key", key);
        }
        ec2(out, "reservation-id", id);
        add_groups(o, out);
}

/* --- together -------------------------------------------------------------------------------- */

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
        return json_string((const char *)out);
}

static json_t *drive_ec2(const struct object *o)
{
        const struct object *port = first_port(o);
        const char *key = object_str(o, "ssh_key");
        char id[ID_TEXT_SIZE];
        json_t *root = json_pack("{s:s, s:s, s:s}", "instance-id", id_text(id, o->id), "hostname",
                                 hostname(o), "local-hostname", hostname(o));

        if (port)
                json_object_set_new(root, "local-ipv4", json_string(object_str(port, "address")));
        if (*key)
                json_object_set_new(root, "public-keys",
                                    json_pack("{s:{s:s}}", "0", "openssh-key", key));
        return root;
}

void documents_drive(struct control *c, const struct object *o, struct buf *out)
{
        const struct meta *user = object_meta(o, "user_data");
        json_t *meta = meta_data(o);

        json_object_set_new(meta, "random_seed", random_seed());
        add_openstack(c, o, meta, out);
        add_json(out, "ec2/latest/meta-data.json", drive_ec2(o));
        if (user)
                add_text(out, "ec2/latest/user-data", user->value);
}

bool documents(struct control *c, const struct object *o, struct buf *out)
{
        const char *service = object_str(o, "metadata_service"), *password;
        const struct meta *user = object_meta(o, "user_data");
        char hops[24];

        if (streq(service, "off"))
                return false;
        add_openstack(c, o, meta_data(o), out);
        password = object_str(o, "password");
        add_text(out, "openstack/latest/password", password);
        meta_data_ec2(c, o, out);
        if (user)
                add_text(out, "latest/user-data", user->value);
        snprintf(hops, sizeof(hops), "%llu", (unsigned long long)object_num(o, "metadata_hops"));
        add_text(out, ".hops", hops);
        if (streq(service, "tokens"))
                add_text(out, ".tokens", "");
        return true;
}
