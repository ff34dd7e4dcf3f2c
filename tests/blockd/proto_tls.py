#!/usr/bin/python3
"""NBD over TCP, plain and with TLS, with the tools that people use: who gets in, and who does not."""
import os
import shutil
import subprocess
import tempfile
import time

import nbd

import credentials
import rig
from rig import THREADS, Blockd, main

MB = 1 << 20
VERSIONS = ("1.2", "1.3")


def setUpModule():
    """One set of credentials for all: making keys takes its time."""
    global CRED
    CRED = tempfile.mkdtemp(prefix="cred.", dir=os.environ.get("TMPDIR", "/tmp"))
    ca = credentials.Authority(CRED)
    ca.issue(CRED + "/server", "server", "localhost", ["DNS:localhost", "IP:127.0.0.1", "IP:::1"])
    credentials.psk(CRED + "/server", **credentials.KEYS)
    ca.issue(CRED + "/host7", "client", "host7", ["DNS:Host7.example"])
    ca.issue(CRED + "/host8", "client", "host8")
    ca.issue(CRED + "/nobody", "client")
    ca.issue(CRED + "/expired", "client", "host7", expired=True)
    ca.issue(CRED + "/usage", "client", "host7", usage="serverAuth")
    ca.issue(CRED + "/revoked", "client", "host7")
    os.mkdir(CRED + "/none")
    ca.show(CRED + "/none")
    other = credentials.Authority(CRED, "other")
    other.issue(CRED + "/stranger", "client", "host7")
    ca.show(CRED + "/stranger")
    credentials.psk(CRED + "/host7", host7=credentials.KEYS["host7"])
    credentials.psk(CRED + "/wrong", host7=credentials.KEYS["host8"])
    credentials.psk(CRED + "/unknown", host9=credentials.KEYS["host8"])
    shutil.copytree(CRED + "/server", CRED + "/strict")
    ca.revoke(CRED + "/revoked/client-cert.pem", CRED + "/strict")
    credentials.write(CRED + "/gnutls-1.2", "[overrides]\ndisabled-version = TLS1.3\n")
    credentials.write(CRED + "/gnutls-1.3", "")


def tearDownModule():
    shutil.rmtree(CRED)


class Case(rig.Case):
    options = ("--tls-dir", "server")

    def setUp(self):
        self.d = Blockd(options=["--listen", "127.0.0.1:0", "--loglevel", "7"] +
                        [os.path.join(CRED, o) if o in ("server", "strict") else o
                         for o in self.options])
        self.addCleanup(self.d.clean)
        self.port = self.d.ports()[0]

    def x509(self, name="", who="host7"):
        return "nbds://localhost:%d/%s?tls-certificates=%s/%s" % (self.port, name, CRED, who)

    def psk(self, name="", who="host7", user="host7"):
        return "nbds://%s@localhost:%d/%s?tls-psk-file=%s/%s/keys.psk" % (
            user, self.port, name, CRED, who)

    def plain(self, name=""):
        return "nbd://127.0.0.1:%d/%s" % (self.port, name)

    def connect(self, uri):
        h = nbd.NBD()
        h.set_uri_allow_local_file(True)
        h.connect_uri(uri)
        return h

    def exports(self, uri):
        """What a client sees that asks for the list."""
        h = nbd.NBD()
        h.set_uri_allow_local_file(True)
        h.set_opt_mode(True)
        h.connect_uri(uri)
        names = []
        h.opt_list(lambda name, words: names.append(name))
        h.opt_abort()
        return sorted(names)

    def refused(self, uri, words):
        """A client of its own, as GnuTLS reads its settings once."""
        before = len(self.d.log())
        p = subprocess.run(["nbdinfo", uri], capture_output=True, text=True, timeout=60)
        self.assertNotEqual(p.returncode, 0, p)
        if words:
            self.wait_log(words, before)

    def wait_log(self, words, since=0):
        end = time.monotonic() + 60
        while words not in self.d.log()[since:]:
            self.assertLess(time.monotonic(), end, "no '%s' in\n%s" % (words, self.d.log()))
            time.sleep(0.02)


class Tools(Case):
    def qemu(self, kind, version):
        """--object and the node of QEMU's tools."""
        node = "driver=nbd,host=localhost,port=%d,export=x7" % self.port
        if kind == "plain":
            return [], node
        o = "tls-creds-%s,id=t,dir=%s/host7,endpoint=client,priority=NORMAL:-VERS-ALL:+VERS-TLS%s" % (
            kind, CRED, version)
        return ["--object", o + (",username=host7" if kind == "psk" else "")], node + ",tls-creds=t"

    def all_tools(self, kind, uri, version=None):
        obj, node = self.qemu(kind, version)
        v = self.d.create(40 * MB)
        self.d.export(v, id="x7", clients=["any"])
        image, back = self.path("image"), self.path("back")
        with open(image, "wb") as f:
            f.write(os.urandom(33 * MB) + bytes(7 * MB))
        if version:
            os.environ["GNUTLS_SYSTEM_PRIORITY_FILE"] = CRED + "/gnutls-" + version
        try:
            self.assertEqual(self.tool("nbdinfo", "--size", uri).strip(), str(40 * MB))
            self.assertIn('export="%s"' % v, self.tool("nbdinfo", "--list", uri))
            self.tool("nbdcopy", image, uri)
            self.tool("nbdcopy", uri, back)
        finally:
            os.environ.pop("GNUTLS_SYSTEM_PRIORITY_FILE", None)
        self.tool("cmp", image, back)
        self.tool("qemu-img", "compare", *obj, "--image-opts", "driver=raw,file.filename=" + image,
                  "driver=raw,file." + node.replace(",", ",file."))
        self.tool("qemu-io", *obj, "--image-opts", node, "-c", "write -P 7 1M 3M", "-c",
                  "write -z 20M 1M", "-c", "flush", "-c", "read -P 7 1M 3M", "-c",
                  "read -P 0 20M 1M", "-c", "discard 4M 1M")
        self.tool("qemu-img", "convert", "-n", *obj, "--image-opts", "--target-image-opts",
                  "driver=raw,file.filename=" + image,
                  "driver=raw,file." + node.replace(",", ",file."))
        self.tool("cmp", image, self.fetch(v))
        if version:
            self.assertNotIn("TLSv" + ("1.3" if version == "1.2" else "1.2"), self.d.log())
            self.assertIn("TLSv" + version, self.d.log())

    def fetch(self, v):
        """The volume's bytes as blockd itself has them, through its own socket."""
        out = self.path("fetched")
        self.tool("nbdcopy", self.d.uri(v), out)
        return out

    def test_x509_12(self):
        self.all_tools("x509", self.x509("x7"), "1.2")
        self.assertIn("GCM", self.d.log())

    def test_x509_13(self):
        self.all_tools("x509", self.x509("x7"), "1.3")

    def test_psk_12(self):
        self.all_tools("psk", self.psk("x7"), "1.2")
        self.assertIn("psk:host7: TLSv1.2 DHE-PSK-AES", self.d.log())

    def test_psk_13(self):
        self.all_tools("psk", self.psk("x7"), "1.3")
        self.assertIn("psk:host7: TLSv1.3", self.d.log())


class PlainTools(Tools):
    options = ("--plain-tcp",)
    test_x509_12 = test_x509_13 = test_psk_12 = test_psk_13 = None

    def test_plain(self):
        self.all_tools("plain", self.plain("x7"))
        log = self.d.log()
        self.assertIn("--plain-tcp: anyone", log)
        self.assertEqual(log.count("a client without TLS: 127.0.0.1"), 1, log)


class Payload(Case):
    def test_sizes(self):
        """Each length around the sizes of records and buffers, and many at once."""
        v = self.d.create(72 * MB)
        self.d.export(v, id="x7", clients=["cn:host7", "psk:host7"])
        for uri in self.x509("x7"), self.psk("x7"):
            h = self.connect(uri)
            for n in (1, 511, 16367, 16368, 16369, 16384, 65536, 98303, MB + 1, 32 * MB):
                data = os.urandom(n)
                h.pwrite(data, 3 * MB - 7)
                self.assertEqual(h.pread(n, 3 * MB - 7), data, n)
            pieces = [os.urandom(4096) for _ in range(64)]
            cookies = [h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(p)), i * 4096)
                       for i, p in enumerate(pieces)]
            self.finish(h, cookies)
            buffers = [nbd.Buffer(4096) for _ in pieces]
            self.finish(h, [h.aio_pread(b, i * 4096) for i, b in enumerate(buffers)])
            self.assertEqual([bytes(b.to_bytearray()) for b in buffers], pieces)
            h.shutdown()

    def test_rest(self):
        """A silent connection gives its thread up, and gets one when it speaks again."""
        v = self.d.create(MB)
        self.d.export(v, id="x7", clients=["any"])
        clients = [self.connect(u) for u in (self.x509("x7"), self.psk("x7"), self.d.uri(v))]
        for i in range(3):
            for h in clients:
                h.pwrite(bytes([i]) * 4096, 0)
            end = time.monotonic() + 60
            while len(os.listdir("/proc/%d/task" % self.d.process.pid)) > THREADS:
                self.assertLess(time.monotonic(), end)
                time.sleep(0.05)
            for h in clients:
                self.assertEqual(h.pread(4096, 0), bytes([i]) * 4096)

    def finish(self, h, cookies):
        while cookies:
            h.poll(-1)
            cookies = [c for c in cookies if not h.aio_command_completed(c)]


class Names(Case):
    def test_who_sees_what(self):
        v, w = self.d.create(MB), self.d.create(2 * MB)
        self.d.export(v, id="by-cn", clients=["cn:host7"])
        self.d.export(v, id="by-dns", clients=["dns:host7.example"], readonly=True)
        self.d.export(v, id="by-key", clients=["psk:host8", "psk:host7"])
        self.d.export(w, id="for-all", clients=["any"])
        self.d.export(w, id="for-none")
        self.d.export(w, id="for-none-either", clients=[])
        host8 = self.psk(who="server", user="host8")
        self.assertEqual(self.exports(self.x509()), ["by-cn", "by-dns", "for-all"])
        self.assertEqual(self.exports(self.psk()), ["by-key", "for-all"])
        self.assertEqual(self.exports(host8), ["by-key", "for-all"])
        self.assertEqual(self.exports(self.x509(who="host8")), ["for-all"])
        self.assertFalse(self.connect(self.x509("by-cn")).is_read_only())
        self.assertTrue(self.connect(self.x509("by-dns")).is_read_only())
        self.assertEqual(self.connect(self.psk(v)).get_size(), MB)
        self.assertEqual(self.connect(self.x509("", who="host8")).get_size(), 2 * MB)
        answers = set()
        for uri in (self.x509("by-key"), self.x509("for-none"), self.x509("unknown"),
                    self.x509(v, who="host8"), self.x509("by-cn", who="host8"),
                    self.x509("for-none-either"), self.x509(""), self.psk("by-cn")):
            name = uri.split("/")[3].split("?")[0]
            with self.assertRaises(nbd.Error) as e:
                self.connect(uri)
            answers.add(e.exception.string.replace(name or "<default>", "NAME") if name else
                        answers and next(iter(answers)))
        self.assertEqual(len(answers), 1, answers)
        # Its own socket and the shared one are as they were.
        self.assertEqual(self.connect(self.d.uri(w)).get_size(), 2 * MB)

    def test_durable(self):
        v = self.d.create(MB)
        want = dict(id="x", volume=v, uid=os.getuid(), gid=os.getgid(), clients=["cn:host7"])
        self.d.ok("export", **want)
        self.d.ok("export", **want)
        self.assertEqual(self.d.err("export", **dict(want, clients=["cn:host8"])), 17)
        self.assertEqual(self.d.err("export", **dict(want, clients=[])), 17)
        self.d.stop()
        self.d.start()
        self.port = self.d.ports()[0]
        self.assertEqual(self.d.ok("list_exports")["exports"][0]["clients"], ["cn:host7"])
        self.assertEqual(self.exports(self.x509()), ["x"])
        self.assertEqual(self.exports(self.x509(who="host8")), [])

    def test_bad_lists(self):
        v = self.d.create(MB)
        for bad in ("any", {}, [7], [""], ["cn:"], ["host7"], ["dns:Host7"], ["cn:a\nb"],
                    ["psk:" + "x" * 252], ["any"] * 65):
            self.assertEqual(self.d.err("export", id="x", volume=v, uid=0, gid=0, clients=bad), 22)

    def test_unexport(self):
        v = self.d.create(MB)
        self.d.export(v, id="x", clients=["any"])
        self.d.export(v, id="y", clients=["any"])
        x, y = self.connect(self.x509("x")), self.connect(self.psk("y"))
        self.d.ok("unexport", id="x")
        with self.assertRaises(nbd.Error):
            x.pread(512, 0)
        self.assertEqual(y.pread(512, 0), bytes(512))
        self.assertEqual(self.exports(self.x509()), ["y"])


class Refused(Case):
    options = ("--tls-dir", "strict")

    def test_refused(self):
        self.d.export(self.d.create(MB), id="x", clients=["any"])
        good = self.connect(self.x509("x"))
        for version in VERSIONS:
            os.environ["GNUTLS_SYSTEM_PRIORITY_FILE"] = CRED + "/gnutls-" + version
            self.addCleanup(os.environ.pop, "GNUTLS_SYSTEM_PRIORITY_FILE", None)
            self.tool("nbdinfo", self.x509("x"))
            self.tool("nbdinfo", self.psk("x"))
            # With 1.3 a client may think that it is in before the server has seen its certificate.
            self.refused(self.x509("x", "expired"), "certificate has expired")
            self.refused(self.x509("x", "revoked"), "certificate revoked")
            self.refused(self.x509("x", "usage"), "certificate: ")
            self.refused(self.x509("x", "nobody"), "certificate names nobody")
            self.refused(self.x509("x", "none"), "peer did not return a certificate")
            self.refused(self.psk("x", "wrong"), "TLS: ")
            self.refused(self.psk("x", "unknown", "host9"), "TLS: ")
            # GnuTLS does not send what the server's CA has not signed; proto_tls_raw.py does.
            self.refused(self.x509("x", "stranger"), "peer did not return a certificate")
        with self.assertRaises(nbd.Error) as e:
            self.connect(self.plain("x"))
        self.assertEqual(e.exception.errnum, 95)  # what libnbd makes of ERR_TLS_REQD
        self.assertEqual(good.pread(512, 0), bytes(512))


class Reload(Case):
    def test_reload(self):
        folder = self.path("server")
        shutil.copytree(CRED + "/server", folder)
        self.d.stop()
        self.d.options[-1] = folder
        self.d.start()
        self.port = self.d.ports()[0]
        self.d.export(self.d.create(MB), id="x", clients=["any"])
        old = self.connect(self.psk("x"))
        credentials.psk(folder, host9=credentials.KEYS["host8"])
        self.refused(self.psk("x", "unknown", "host9"), "TLS: ")
        self.d.ok("reload_tls")
        self.connect(self.psk("x", "unknown", "host9")).shutdown()
        self.refused(self.psk("x"), "TLS: ")
        self.assertEqual(old.pread(512, 0), bytes(512))
        os.unlink(folder + "/server-key.pem")
        answer = self.d.call("reload_tls")
        self.assertEqual((answer["ok"], answer["errno"]), (False, 2))
        self.assertIn("server-key.pem", answer["error"])
        self.connect(self.psk("x", "unknown", "host9")).shutdown()
        self.connect(self.x509("x")).shutdown()


class Start(rig.Case):
    def setUp(self):
        self.top = tempfile.mkdtemp(prefix="bd.", dir=os.environ.get("TMPDIR", "/tmp"))
        self.addCleanup(shutil.rmtree, self.top)

    def start(self, *options):
        p = subprocess.run([rig.BLOCKD, "--state", self.top + "/s", "--run", self.top + "/r",
                            *options], capture_output=True, text=True, timeout=60)
        self.assertNotEqual(p.returncode, 0)
        return p.stderr

    def with_files(self, **files):
        folder = self.top + "/tls"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(CRED + "/server", folder)
        for name, text in files.items():
            name = folder + "/" + name.replace("__", ".").replace("_", "-")
            if text is None:
                os.unlink(name)
            else:
                credentials.write(name, text)
        return self.start("--listen", "127.0.0.1:0", "--tls-dir", folder)

    def test_refused(self):
        self.assertIn("--plain-tcp", self.start("--listen", "127.0.0.1:0"))
        for bad in ("localhost:1", "127.0.0.1:", "127.0.0.1:x", "[::1", "[]:1", ":1", "",
                    "127.0.0.1:99999"):
            self.assertIn("listen on '%s'" % bad, self.start("--listen", bad, "--plain-tcp"))
        self.assertIn("usage", self.start(*["--listen", "127.0.0.1:0"] * 9, "--plain-tcp"))
        self.assertIn("keys.psk", self.start("--listen", "127.0.0.1:0", "--tls-dir", self.top))

    def test_files(self):
        with open(CRED + "/host7/client-key.pem") as f:
            other = f.read()
        encrypted = subprocess.run(["openssl", "rsa", "-in", CRED + "/host7/client-key.pem", "-aes128",
                                    "-passout", "pass:secret"], capture_output=True, text=True,
                                   check=True).stdout
        key = "0123456789abcdef" * 2
        self.assertIn("is not the key of", self.with_files(server_key__pem=other))
        self.assertIn("server-key.pem", self.with_files(server_key__pem=encrypted))
        self.assertIn("server-cert.pem", self.with_files(server_cert__pem="nonsense"))
        self.assertIn("ca-cert.pem", self.with_files(ca_cert__pem=None))
        self.assertIn("ca-cert.pem", self.with_files(ca_cert__pem=""))
        self.assertIn("ca-crl.pem", self.with_files(ca_crl__pem="nonsense"))
        for bad in ("host7", ":" + key, "a:" + key[:-2], "a:" + key[:-1], "a:" + key[:-2] + "xx",
                    "a b\x01:" + key, "#61:" + key, "a:%s\na:%s" % (key, key), "x" * 300 + ":" + key,
                    "a:" + "00" * 600):
            self.assertIn("keys.psk', line", self.with_files(keys__psk="ok:%s\n%s\n" % (key, bad)))
        self.assertIn("holds no key", self.with_files(keys__psk="\n"))


class Warnings(Case):
    options = ("--tls-dir", "server", "--listen", "[::1]:0", "--listen", "127.0.0.1:0")

    def test_readable(self):
        folder = self.path("server")
        shutil.copytree(CRED + "/server", folder)
        self.assertNotIn("may read it", self.d.log())
        os.chmod(folder + "/server-key.pem", 0o640)
        os.chmod(folder + "/keys.psk", 0o604)
        self.d.stop()
        self.d.options[self.d.options.index("--tls-dir") + 1] = folder
        self.d.start()
        self.assertEqual(self.d.log().count("may read it"), 2)

    def test_addresses(self):
        self.d.export(self.d.create(MB), id="x", clients=["any"])
        ports = self.d.ports()
        self.assertEqual(len(ports), 3)
        for self.port, host in zip(ports, ("127.0.0.1", "[::1]", "127.0.0.1")):
            self.connect(self.x509("x").replace("localhost", host)).shutdown()


if __name__ == "__main__":
    main()
