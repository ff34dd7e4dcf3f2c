#!/usr/bin/python3
"""stratofs-metadata alone, in a network namespace of the test's: each guest gets its own documents."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

UID = 900000256
SERVER = ("169.254.169.254", 80)
LINK = socket.if_nametoindex("lo")
SERVER6 = ("fe80::a9fe:a9fe", 80, 0, LINK)


def bundle(**documents):
    text = b""
    for name, data in documents.items():
        text += b"%s %d\n%s\n" % (name.encode(), len(data), data)
    return text


def documents(uuid, **more):
    return bundle(**{"openstack/latest/meta_data.json": b'{"uuid": "%s"}' % uuid,
                     "openstack/latest/password": b"",
                     "latest/meta-data/instance-id": uuid,
                     "latest/meta-data/public-keys/": b"0=default",
                     "latest/meta-data/public-keys/0/openssh-key": b"ssh-ed25519 AAAA",
                     "latest/user-data": b"\x00\xff" * 1000, ".hops": b"1", **more})


def receive(s):
    data = b""
    while piece := s.recv(65536):
        data += piece
    return data


def raw(source, data, end=False):
    six = ":" in source
    with socket.socket(socket.AF_INET6 if six else socket.AF_INET) as s:
        s.settimeout(20)
        s.bind((source, 0, 0, LINK) if six else (source, 0))
        s.connect(SERVER6 if six else SERVER)
        try:
            s.sendall(data)
            if end:
                s.shutdown(socket.SHUT_WR)
            return receive(s)
        except OSError:
            return b""


def ask(source, path, method="GET", body=None, **headers):
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    head += "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in headers.items())
    if body is not None:
        head += f"Content-Length: {len(body)}\r\n"
    answer = raw(source, head.encode() + b"\r\n" + (body or b""))
    head, _, text = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), text


def pid_of(folder):
    with open(folder + "/metadata.pid", encoding="ascii") as f:
        return int(f.read())


def status_of(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def ended(pid):
    """It may go between two looks."""
    try:
        return status_of(pid)["State"].startswith("Z")
    except (FileNotFoundError, ProcessLookupError):
        return True


def put(folder, name, data):
    path = f"{folder}/meta/{name}"
    with open(path + ".new", "wb") as f:
        f.write(data)
        os.fchown(f.fileno(), 0, UID)
        os.fchmod(f.fileno(), 0o640)
    os.rename(path + ".new", path)


def start(program, folder):
    subprocess.run([program, folder, "lo", str(UID)], check=True)
    return pid_of(folder)


def check_forms(a, b):
    assert ask(a, "/openstack/latest/meta_data.json") == (200, b'{"uuid": "one"}')
    assert ask(b, "/openstack/2018-08-27/meta_data.json") == (200, b'{"uuid": "two"}')
    assert ask(b, "/2009-04-04/meta-data/instance-id") == (200, b"two")
    assert ask(a, "/latest/user-data") == (200, b"\x00\xff" * 1000)
    assert b"\nlatest" in ask(a, "/")[1] and b"2018-08-27\n" in ask(a, "/openstack")[1]
    assert ask(a, "/latest/meta-data/") == (200, b"instance-id\npublic-keys/")
    assert ask(a, "/latest/meta-data/public-keys/") == (200, b"0=default")
    assert ask(a, "/latest/") == (200, b"meta-data/\nuser-data")
    assert ask(a, "/latest/meta-data/none")[0] == 404
    for path in ("/../../etc/passwd", "/latest/%2e%2e/10.9.0.3", "/latest/.hops", "/posted", "/10.9.0.3"):
        assert ask(a, path)[0] == 404, path
    assert ask(a, "/latest/user-data", "DELETE")[0] == 405
    assert ask("10.9.0.9", "/latest/meta-data/instance-id")[0] == 404  # nobody's address


def check_tokens(folder, a, b):
    ttl = {"X_aws_ec2_metadata_token_ttl_seconds": "60"}
    for bad in ("0", "21601", "x", "-1", ""):
        assert ask(a, "/latest/api/token", "PUT", X_aws_ec2_metadata_token_ttl_seconds=bad)[0] == 400, bad
    assert ask(a, "/latest/api/token", "PUT")[0] == 400
    assert ask(a, "/latest/api/token", "PUT", X_Forwarded_For="1.2.3.4", **ttl)[0] == 403
    status, token = ask(a, "/latest/api/token", "PUT", **ttl)
    assert status == 200
    token = {"X_aws_ec2_metadata_token": token.decode()}
    assert ask(a, "/latest/meta-data/instance-id", **token) == (200, b"one")
    assert ask(b, "/latest/meta-data/instance-id", **token)[0] == 401
    assert ask(a, "/latest/meta-data/instance-id", X_aws_ec2_metadata_token="1-2")[0] == 401
    put(folder, a, documents(b"one", **{".tokens": b""}))
    assert ask(a, "/latest/meta-data/instance-id")[0] == 401
    assert ask(a, "/openstack/latest/meta_data.json")[0] == 401
    assert ask(a, "/latest/meta-data/instance-id", **token) == (200, b"one")
    put(folder, a, documents(b"one"))


def check_hops(folder, a):
    """The answer that carries a token has the time to live that was said: 1 unless written."""
    for hops in (1, 5):
        put(folder, a, documents(b"one", **{".hops": b"%d" % hops}))
        sniff = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x800))
        sniff.bind(("lo", 0))
        sniff.settimeout(10)
        ask(a, "/latest/api/token", "PUT", X_aws_ec2_metadata_token_ttl_seconds="60")
        while True:
            packet = sniff.recv(65536)
            if packet[9] == 6 and socket.inet_aton(SERVER[0]) == packet[12:16] and b"200 OK" in packet:
                break
        assert packet[8] == hops, packet[8]
        sniff.close()
    put(folder, a, documents(b"one"))


def check_password(folder, a, b):
    url = "/openstack/latest/password"
    assert ask(a, url) == (200, b"")
    assert ask(a, url, "POST", b"x" * 5000)[0] == 413
    assert ask(a, url, "POST", b"")[0] == 400
    assert ask(a, "/latest/user-data", "POST", b"x")[0] == 405
    assert ask(a, url, "POST", b"c2VjcmV0")[0] == 200
    assert ask(a, url, "POST", b"other")[0] == 409
    assert ask(a, url) == (200, b"c2VjcmV0")
    assert ask(b, url) == (200, b"")
    with open(f"{folder}/meta/posted/{a}", "rb") as f:
        assert f.read() == b"c2VjcmV0"
    put(folder, b, documents(b"two", **{"openstack/latest/password": b"known"}))
    assert ask(b, url, "POST", b"other")[0] == 409 and ask(b, url) == (200, b"known")


def check_hostile(a, b):
    """Nonsense and silence of one guest do not keep the other from its answers."""
    for data in (b"\r\n" * 100 + b"X\r\n\r\n", b"GET\r\n\r\n", b"\x00" * 50000 + b"\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
                 b"GET /" + b"x" * 100000 + b" HTTP/1.0\r\n\r\n", b"GET / HTTP/1.0\r\n" + b"A: b\r\n" * 50000 + b"\r\n",
                 b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
                 b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nffffffffffffffffff\r\n"):
        assert b"200 OK" not in raw(a, data, end=True), data[:40]
    good = (b"GET /openstack/latest/meta_data.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            b"PUT /latest/api/token HTTP/1.1\r\nHost: x\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n",
            b"POST /openstack/latest/password HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcd")
    chance = random.Random(8)
    for _ in range(300):
        data = bytearray(chance.choice(good))
        for _ in range(chance.randint(1, 8)):
            at = chance.randrange(len(data))
            data[at:at + chance.randint(0, 2)] = chance.choice((b"\0", b"%", b"%2", b"\r\n", b"/", b"..", b"\xff", b":", b" ", b"9" * 30))
        with socket.socket() as s:  # it does not wait for the answer, which may take as long as silence
            s.bind(("10.9.0.4", 0))
            s.connect(SERVER)
            s.sendall(data)
    assert ask(b, "/latest/meta-data/instance-id") == (200, b"two")
    silent = []
    for _ in range(200):
        s = socket.socket()
        s.setblocking(False)
        s.bind((a, 0))
        s.connect_ex(SERVER)
        silent.append(s)
    assert ask(b, "/latest/meta-data/instance-id") == (200, b"two")
    for s in silent:
        s.close()


def check_six(folder, a):
    """The same at the link's address, which comes when the network has IPv6; and to nobody else."""
    for address in ("fe80::a9fe:a9fe", "fe80::5", "fe80::6"):
        subprocess.run(["ip", "addr", "add", address + "/64", "dev", "lo", "nodad"], check=True)
    put(folder, "fe80::5", documents(b"six", **{".tokens": b""}))
    url = "/latest/meta-data/instance-id"
    assert ask("fe80::5", url)[0] == 401
    status, token = ask("fe80::5", "/latest/api/token", "PUT", X_aws_ec2_metadata_token_ttl_seconds="60")
    assert status == 200 and ask("fe80::5", url, X_aws_ec2_metadata_token=token.decode()) == (200, b"six")
    assert ask(a, url, X_aws_ec2_metadata_token=token.decode())[0] == 401
    assert ask("fe80::6", url)[0] == 404
    put(folder, "fe80::5", documents(b"six"))
    assert ask("fe80::5", "/openstack/latest/password", "POST", b"c2l4")[0] == 200
    with open(f"{folder}/meta/posted/fe80::5", "rb") as f:
        assert f.read() == b"c2l4"


def check_walls(pid, folder):
    status = status_of(pid)
    assert status["Uid"].split() == [str(UID)] * 4 and status["Gid"].split() == [str(UID)] * 4
    assert all(int(status[k], 16) == 0 for k in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")), status
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2" and status["Groups"].strip() == ""
    assert os.readlink(f"/proc/{pid}/root") == os.path.realpath(folder + "/meta")


def main(program):
    if os.getuid() != 0:
        sys.exit(1 if os.environ.get("CI") else 77)
    if os.environ.get("INSIDE") != "1":
        os.environ["INSIDE"] = "1"
        os.execvp("unshare", ["unshare", "--net", sys.argv[0], program])
    for command in ("link set lo up", "addr add 169.254.169.254/32 dev lo", "addr add 10.9.0.0/24 dev lo"):
        subprocess.run(["ip", *command.split()], check=True)
    folder = tempfile.mkdtemp()
    a, b = "10.9.0.2", "10.9.0.3"
    pid = 0
    try:
        os.mkdir(folder + "/meta")
        os.mkdir(folder + "/meta/posted", 0o700)
        os.chown(folder + "/meta/posted", UID, UID)
        os.chown(folder + "/meta", 0, UID)
        os.chmod(folder + "/meta", 0o710)
        os.chmod(folder, 0o711)
        put(folder, a, documents(b"one"))
        put(folder, b, documents(b"two"))
        put(folder, "10.9.0.4", documents(b"mad"))
        pid = start(program, folder)
        check_walls(pid, folder)
        check_forms(a, b)
        check_tokens(folder, a, b)
        check_hops(folder, a)
        check_password(folder, a, b)
        check_hostile(a, b)
        check_six(folder, a)
        assert subprocess.run([program, folder, "lo", str(UID)], stderr=subprocess.DEVNULL,
                              check=False).returncode == 1  # the address is taken
        assert os.path.exists(f"/proc/{pid}")
        os.kill(pid, signal.SIGKILL)
        while not ended(pid):
            time.sleep(0.01)
        pid = start(program, folder)
        assert ask(b, "/latest/meta-data/instance-id") == (200, b"two")
    finally:
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(sys.argv[1])
