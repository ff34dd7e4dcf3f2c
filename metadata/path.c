/* What is called how: versions, folders, documents. */
#include "metadata/metadata.h"

#include "common/bundle.h"

/* As cloud-init and cloudbase-init ask for them. */
static const char *const openstack[] = {"2012-08-10", "2013-04-04", "2013-10-17", "2015-10-15",
                                        "2016-06-30", "2016-10-06", "2017-02-22", "2018-08-27",
                                        "2020-10-14", "latest"};
static const char *const ec2[] = {"1.0",        "2007-01-19", "2007-03-01", "2007-08-29",
                                  "2007-10-10", "2007-12-15", "2008-02-01", "2008-09-01",
                                  "2009-04-04", "2016-09-02", "2018-09-24", "2021-03-23",
                                  "latest"};

static bool known(const char *const *v, size_t n, const char *s, size_t len)
{
        for (size_t i = 0; i < n; i++)
                if (strlen(v[i]) == len && memcmp(v[i], s, len) == 0)
                        return true;
        return false;
}

static void versions(const char *const *v, size_t n, struct buf *list)
{
        for (size_t i = 0; i < n; i++)
                buf_printf(list, "%s%s", i ? "\n" : "", v[i]);
}

/* The next part between slashes; false at the end. */
static bool part(const char **p, const char **ret, size_t *n)
{
        *p += strspn(*p, "/");
        *ret = *p;
        *n = strcspn(*p, "/");
        *p += *n;
        return *n > 0;
}

bool path_canonical(const char *url, char out[PATH_SIZE])
{
        const char *w;
        size_t n, len = 0;
        bool stack = false;

        out[0] = '\0';
        for (unsigned i = 0; part(&url, &w, &n); i++) {
                bool version = i == (stack ? 1 : 0);

                if (i == 0 && n == 9 && memcmp(w, "openstack", 9) == 0) {
                        stack = true;
                } else if (version) {
                        if (!(stack ? known(openstack, ARRAY_SIZE(openstack), w, n)
                                    : known(ec2, ARRAY_SIZE(ec2), w, n)))
                                return false;
                        w = "latest";
                        n = strlen(w);
                }
                if (w[0] == '.' || len + n + 2 > PATH_SIZE)
                        return false;
                if (i > 0)
                        out[len++] = '/';
                memcpy(out + len, w, n);
                out[len += n] = '\0';
        }
        return true;
}

/* Adds what of name lies in the folder, if it is not the last one already. */
static void list_add(struct buf *list, const struct bundle_item *x, size_t folder, size_t *last)
{
        const char *rest = x->name + folder, *end = x->name + x->name_len;
        const char *slash = memchr(rest, '/', end - rest);
        size_t n = slash ? (size_t)(slash + 1 - rest) : (size_t)(end - rest);

        if (n == 0 || (list->len && list->len - *last == n && !memcmp(list->data + *last, rest, n)))
                return;
        if (list->len)
                buf_addc(list, '\n');
        *last = list->len;
        buf_add(list, rest, n);
}

int path_look(const char *bundle, size_t n, const char *name, struct buf *list,
              struct bundle_item *ret)
{
        size_t len = strlen(name), last = 0;
        char folder[PATH_SIZE + 1];
        const char *p = bundle;
        struct bundle_item x;

        if (len == 0)
                versions(ec2, ARRAY_SIZE(ec2), list);
        else if (streq(name, "openstack"))
                versions(openstack, ARRAY_SIZE(openstack), list);
        else if (bundle_find(bundle, n, name, ret))
                return 1;
        snprintf(folder, sizeof(folder), "%s/", name);
        if (!list->len && bundle_find(bundle, n, folder, ret)) /* its list is not just its names */
                return 1;
        while (!streq(name, "") && !streq(name, "openstack") && bundle_next(&p, bundle + n, &x))
                if (x.name_len > len + 1 && memcmp(x.name, folder, len + 1) == 0)
                        list_add(list, &x, len + 1, &last);
        *ret = (struct bundle_item){.data = buf_str(list), .len = list->len};
        return list->len > 0;
}
