"""Credentials for the tests of TLS, made with openssl(1), in folders as QEMU and libvirt want them."""
import os
import subprocess

KEYS = {"host7": "0123456789abcdef" * 4, "host8": "fedcba9876543210" * 4}


def openssl(*args, cwd):
    subprocess.run(["openssl", *args], cwd=cwd, check=True, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def write(path, text):
    with open(path, "w") as f:
        os.fchmod(f.fileno(), 0o600)
        f.write(text)


class Authority:
    """A CA in a folder; issue() makes others' certificates, revoke() lists them."""

    def __init__(self, top, name="ca"):
        self.top = os.path.join(top, name)
        os.makedirs(self.top)
        write(self.top + "/ca.cnf", """
[ca]
default_ca = d
[d]
database = index
new_certs_dir = .
certificate = ca-cert.pem
private_key = ca-key.pem
serial = serial
crlnumber = crlnumber
default_md = sha256
policy = p
copy_extensions = copy
default_crl_days = 30
unique_subject = no
[p]
commonName = optional
organizationName = optional
""")
        write(self.top + "/index", "")
        write(self.top + "/serial", "1000\n")
        write(self.top + "/crlnumber", "01\n")
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-keyout",
                "ca-key.pem", "-out", "ca-cert.pem", "-subj", "/CN=The tests' " + name,
                cwd=self.top)

    def issue(self, folder, kind, cn=None, names=(), expired=False, usage=None):
        """folder gets kind-cert.pem (server, client), kind-key.pem and ca-cert.pem."""
        os.makedirs(folder, exist_ok=True)
        cert, key = "%s/%s-cert.pem" % (folder, kind), "%s/%s-key.pem" % (folder, kind)
        subject = "/CN=" + cn if cn else "/O=Nobody"
        extra = ["-addext", "extendedKeyUsage=" + (usage or kind + "Auth")]
        if names:
            extra += ["-addext", "subjectAltName=" + ",".join(names)]
        openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", "req.pem",
                "-subj", subject, *extra, cwd=self.top)
        days = ["-startdate", "20200101000000Z", "-enddate", "20200201000000Z"] if expired else \
            ["-days", "7"]
        openssl("ca", "-config", "ca.cnf", "-batch", "-notext", "-in", "req.pem", "-out", cert,
                *days, cwd=self.top)
        os.chmod(key, 0o600)
        self.show(folder)
        return folder

    def show(self, folder):
        """folder trusts this CA."""
        with open(self.top + "/ca-cert.pem") as f:
            write(folder + "/ca-cert.pem", f.read())

    def revoke(self, cert, folder):
        openssl("ca", "-config", "ca.cnf", "-revoke", cert, cwd=self.top)
        openssl("ca", "-config", "ca.cnf", "-gencrl", "-out", folder + "/ca-crl.pem", cwd=self.top)


def psk(folder, **keys):
    """folder/keys.psk as psktool writes it."""
    os.makedirs(folder, exist_ok=True)
    write(folder + "/keys.psk", "".join("%s:%s\n" % k for k in keys.items()))
    return folder
