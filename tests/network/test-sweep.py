#!/usr/bin/python3
"""What gets through between guests, tenants, the host and the outside: every port, as nmap would ask.

Guests are this program: it holds their taps, as QEMU would, and writes and reads frames. What is
let in is seen where it arrives, so silence is not mistaken for a wall. With STRATOFS_LONG=1 every
sweep is of every port; else most are of 1,000.
"""

import fcntl
import os
import random
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time

TCP, UDP = 6, 17
ALL = range(1, 65536)
SOME = ALL if os.environ.get("STRATOFS_LONG") else sorted({*range(1, 301), *random.sample(ALL, 700), 8080, 16509})
FEW = sorted({22, 53, 80, *random.sample(ALL, 100)})
GATEWAY = {"a": "02:aa:aa:aa:aa:aa", "b": "02:bb:bb:bb:bb:bb"}


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data)) + (data[-1] << 8 if len(data) % 2 else 0)
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def packets(source, target, protocol, ports):
    """IPv4 packets: SYNs, or datagrams of four bytes."""
    src, dst = socket.inet_aton(source), socket.inet_aton(target)
    size = 20 if protocol == TCP else 12
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + size, 0, 0, 64, protocol, 0, src, dst)
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    pseudo = src + dst + struct.pack("!HH", protocol, size)
    for port in ports:
        if protocol == TCP:
            body = struct.pack("!HHIIBBHHH", 40000, port, 1, 0, 0x50, 2, 1024, 0, 0)
            body = body[:16] + struct.pack("!H", checksum(pseudo + body)) + body[18:]
        else:
            body = struct.pack("!HHHH4s", 40000, port, size, 0, b"hunt")
            body = body[:6] + struct.pack("!H", checksum(pseudo + body) or 0xffff) + body[8:]
        yield head + body


def packets6(source, target, protocol, ports):
    """The same, of IPv6."""
    src, dst = (socket.inet_pton(socket.AF_INET6, a) for a in (source, target))
    size = 20 if protocol == TCP else 12
    head = struct.pack("!IHBB16s16s", 6 << 28, size, protocol, 64, src, dst)
    pseudo = src + dst + struct.pack("!II", size, protocol)
    for port in ports:
        if protocol == TCP:
            body = struct.pack("!HHIIBBHHH", 40000, port, 1, 0, 0x50, 2, 1024, 0, 0)
            body = body[:16] + struct.pack("!H", checksum(pseudo + body)) + body[18:]
        else:
            body = struct.pack("!HHHH4s", 40000, port, size, 0, b"hunt")
            body = body[:6] + struct.pack("!H", checksum(pseudo + body) or 0xffff) + body[8:]
        yield head + body


class Guest:
    """One that answers ARP, and remembers what came for it."""

    def __init__(self, number, network, address):
        self.address = address
        self.address6 = "fd00:8::" + address[-1]
        self.mac = mac(f"06:00:00:00:00:{number}0")
        self.gateway = mac(GATEWAY[network])
        self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        name = f"snt{number}00000000000".encode()
        fcntl.ioctl(self.fd, 0x400454ca, struct.pack("16sH22x", name, FLAGS))  # TUNSETIFF
        self.seen = set()

    def send(self, packet, source=None):
        try:
            kind = b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00"
            os.write(self.fd, self.gateway + (source or self.mac) + kind + packet)
        except BlockingIOError:
            time.sleep(0.001)

    def receive(self):
        frame = os.read(self.fd, 65536)
        kind = frame[12:14]
        if kind == b"\x08\x06" and frame[20:22] == b"\x00\x01" and frame[38:42] == socket.inet_aton(self.address):
            os.write(self.fd, frame[6:12] + self.mac + b"\x08\x06" + frame[14:20] + b"\x00\x02" + self.mac +
                     frame[38:42] + frame[22:28] + frame[28:32])
        elif kind == b"\x08\x00":
            ip = frame[14:]
            what, at = ip[9], (ip[0] & 15) * 4
            sport, dport = struct.unpack("!HH", ip[at:at + 4])
            flags = ip[at + 13] if what == TCP else 0
            self.seen.add((what, socket.inet_ntoa(ip[12:16]), sport, dport, flags))
        elif kind == b"\x86\xdd":
            self.receive6(frame)

    def receive6(self, frame):
        ip, own = frame[14:], socket.inet_pton(socket.AF_INET6, self.address6)
        if ip[6] == 58 and ip[40] == 135 and ip[48:64] == own:
            body = struct.pack("!BBHI16sBB6s", 136, 0, 0, 0x60000000, own, 2, 1, self.mac)
            sum6 = checksum(own + ip[8:24] + struct.pack("!II", len(body), 58) + body)
            body = body[:2] + struct.pack("!H", sum6) + body[4:]
            head = struct.pack("!IHBB16s16s", 6 << 28, len(body), 58, 255, own, ip[8:24])
            os.write(self.fd, frame[6:12] + self.mac + b"\x86\xdd" + head + body)
        elif ip[6] in (TCP, UDP):
            sport, dport = struct.unpack("!HH", ip[40:44])
            self.seen.add((ip[6], socket.inet_ntop(socket.AF_INET6, ip[8:24]), sport, dport,
                           ip[53] if ip[6] == TCP else 0))


class Outside:
    """Somebody beyond the host, with a socket that sends what it is given."""

    def __init__(self):
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        target = os.open("/run/netns/outside", os.O_RDONLY)
        libc.setns(target, 0x40000000)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        libc.setns(home, 0x40000000)
        self.address = "192.0.2.2"

    def send(self, packet):
        self.socket.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))


def drain(guests, quiet):
    """Until nothing has come for so many seconds."""
    while ready := select.select([g.fd for g in guests], [], [], quiet)[0]:
        for g in guests:
            if g.fd in ready:
                g.receive()


def sweep(guests, who, target, protocol, ports):
    """Ports of target at which something arrived, for each guest; and what came back to who."""
    for g in guests:
        g.seen.clear()
    six = ":" in target
    made = packets6(who.address6, target, protocol, ports) if six else packets(who.address, target, protocol, ports)
    for i, packet in enumerate(made):
        who.send(packet)
        if i % 32 == 0:
            drain(guests, 0)
    drain(guests, 0.15)
    arrived = [{s[3] for s in g.seen if s[0] == protocol and s[2] == 40000} for g in guests]
    back = {(s[2], s[4]) for s in getattr(who, "seen", ()) if s[:2] == (protocol, target) and s[3] == 40000}
    return arrived, back


def expect(guests, who, target, ports, tcp=(), udp=(), at=None, words=""):
    """Just these of the ports are let in, and only by the guest `at`."""
    for protocol, want in ((TCP, tcp), (UDP, udp)):
        arrived, back = sweep(guests, who, target, protocol, ports)
        for g, got in zip(guests, arrived):
            right = set(want) & set(ports) if g is at else set()
            if got != right:
                sys.exit(f"FAIL: {words}, protocol {protocol}: {g.address} was reached at {len(got)} ports, "
                         f"not {len(right)}: {sorted(got ^ right)[:10]}")
        if back:
            sys.exit(f"FAIL: {words}: {target} answered from {sorted(back)[:10]}")
    print(f"ok: {words}")


def opened(guests, who, target, ports, want, words):
    """Just these take connections; nothing else is even refused."""
    _, back = sweep(guests, who, target, TCP, ports)
    got = {port for port, flags in back if flags == 0x12}
    rest = {port for port, _ in back} - got
    _, udp = sweep(guests, who, target, UDP, ports)
    if got != set(want) or rest or udp:
        sys.exit(f"FAIL: {words}: open {sorted(got)[:10]}, answered {sorted(back)[:10]}, by UDP {sorted(udp)[:10]}")
    print(f"ok: {words}")


def changes(process, guests, who, target):
    """Rules are replaced again and again: what they all allow never fails, what none allows never gets in."""
    for g in guests:
        g.seen.clear()
    sent = 0
    for _ in range(100):
        process.stdin.write(b"\n")
        process.stdin.flush()
        while True:
            sent += 1
            for port in (80, 79):
                frame = bytearray(next(packets(who.address, target.address, TCP, [port])))
                frame[20:22] = struct.pack("!H", 1024 + sent)
                frame[36:38] = b"\0\0"
                frame[36:38] = struct.pack("!H", checksum(bytes(frame[12:20]) + struct.pack("!HH", TCP, 20) + frame[20:]))
                who.send(bytes(frame))
            drain(guests, 0)
            if select.select([process.stdout], [], [], 0.002)[0]:
                break
        if process.stdout.readline() != b"done\n":
            sys.exit("FAIL: the rules were not changed")
    drain(guests, 0.3)
    got = {s[2] for s in target.seen if s[:2] == (TCP, who.address) and s[3] == 80}
    if len(got) != sent or any(s[3] == 79 for s in target.seen if s[0] == TCP):
        sys.exit(f"FAIL: while rules changed {len(got)} of {sent} got through where they were allowed")
    print(f"ok: 100 changes of rules under {sent} connections: none was lost, none slipped in")


def run(guests):
    a1, a2, a3, a4, b1, b2 = guests
    # What is allowed gets through: else the rest would prove nothing.
    expect(guests, a1, a2.address, FEW, tcp=FEW, udp=FEW, at=a2, words="within the default group all is open")
    expect(guests, b1, b2.address, FEW, tcp=FEW, udp=FEW, at=b2, words="in the other tenant, too, and only there")
    expect(guests, a1, a3.address, ALL, tcp={80}, udp={84}, at=a3, words="of all ports those that rules name")
    expect(guests, a1, a4.address, SOME, words="nothing where no rule is")
    expect(guests, a4, a1.address, SOME, words="nor out of there")
    expect(guests, a3, a1.address, SOME, words="who is not in the group gets nothing of it")
    expect(guests, b1, a3.address, SOME, words="an address of the other tenant's leads nowhere")
    for who, name in ((b1, "another tenant"), (Outside(), "the outside")):
        expect(guests, who, "198.51.100.1", SOME,
               words=f"{name} gets nothing by a floating IP that no rule opens")
        expect(guests, who, "198.51.100.2", SOME, tcp={80}, udp={84}, at=a3, words=f"{name} gets what a rule opens")
    expect(guests, Outside(), a1.address, SOME, words="the outside does not get to a guest's own address")
    opened(guests, a1, "10.0.0.1", SOME, {53}, "the gateway has DNS and nothing else")
    opened(guests, a1, "169.254.169.254", SOME, {80}, "the metadata service has its port and nothing else")
    for target in ("192.0.2.1", "169.254.0.1", "169.254.1.0", "169.254.1.1"):
        opened(guests, a1, target, SOME, set(), f"nothing of the host or of a neighbour's way out at {target}")
    # A load balancer: its port's groups, and its members' groups.
    opened(guests, a1, "10.0.0.6", SOME, {8080}, "a load balancer takes connections where it listens, of its group")
    opened(guests, a3, "10.0.0.6", SOME, set(), "and of nobody else")
    opened(guests, b1, "10.0.0.6", SOME, set(), "nor of another tenant")
    for g in guests:
        g.seen.clear()
    end = time.monotonic() + 30
    while not any(s[1] == "10.0.0.6" for s in a3.seen) and time.monotonic() < end:
        drain(guests, 0.1)
    time.sleep(1.5)  # as long as its next check takes
    drain(guests, 0.1)
    if {s[3] for s in a3.seen if s[1] == "10.0.0.6"} != {80} or any(s[1] == "10.0.0.6" for s in a4.seen):
        sys.exit(f"FAIL: it reaches members at {a3.seen} {a4.seen}")
    print("ok: it reaches the member whose rules let it in, and not the other")
    # The same over IPv6.
    expect(guests, a1, a2.address6, FEW, tcp=FEW, udp=FEW, at=a2, words="IPv6: within the default group all is open")
    expect(guests, a1, a3.address6, SOME, tcp={80}, udp={86}, at=a3,
           words="IPv6: the ports that rules name, all of IPv4 is none of them")
    expect(guests, a1, a4.address6, SOME, words="IPv6: nothing where no rule is")
    expect(guests, a3, a1.address6, SOME, words="IPv6: who is not in the group gets nothing of it")
    expect(guests, b1, a3.address6, SOME, words="IPv6: an address of the other tenant's leads nowhere")
    opened(guests, a1, "fd00:8::1", SOME, {53}, "IPv6: the gateway has DNS and nothing else")
    a1.address6, own = "fe80::400:ff:fe00:10", a1.address6
    opened(guests, a1, "fe80::a9fe:a9fe", SOME, {53, 80}, "IPv6: the metadata service is there, and DNS")
    a1.address6 = own
    opened(guests, a1, "fe80::a9fe:a9fe", SOME, set(), "IPv6: but for the address of the guest's link only")
    # Somebody else's address, somebody else's MAC.
    for g in guests:
        g.seen.clear()
    for packet in packets(a2.address, a1.address, UDP, FEW):
        a4.send(packet)
        a4.send(packet, a2.mac)
    for packet in packets6(a2.address6, a1.address6, UDP, FEW):
        a4.send(packet)
        a4.send(packet, a2.mac)
    drain(guests, 0.3)
    if any(s[0] == UDP for g in guests for s in g.seen):
        sys.exit("FAIL: a guest spoke as another one")
    print("ok: nobody speaks as another one")


def main(scene, metadata):
    if os.getuid() != 0:
        sys.exit(1 if os.environ.get("CI") else 77)
    if os.environ.get("INSIDE") != "1":
        os.environ["INSIDE"] = "1"
        os.execvp("unshare", ["unshare", "--net", "--mount", "--propagation", "private", *sys.argv])
    for command in ("ip link set lo up", "mkdir -p /run/netns", "mount -t tmpfs tmpfs /run/netns", "ip netns add outside",
                    "ip link add cable type veth peer name eth0 netns outside", "ip addr add 192.0.2.1/24 dev cable",
                    "ip link set cable up", "ip -n outside link set lo up", "ip -n outside addr add 192.0.2.2/24 dev eth0",
                    "ip -n outside link set eth0 up", "ip -n outside route add default via 192.0.2.1"):
        subprocess.run(command.split(), check=True)
    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o711)
    guests = []
    with subprocess.Popen([scene, folder, metadata], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            if process.stdout.readline() != b"ready\n":
                sys.exit("FAIL: no networks")
            for number, network, address in ((1, "a", 2), (2, "a", 3), (3, "a", 4), (4, "a", 5), (5, "b", 2), (6, "b", 3)):
                guests.append(Guest(number, network, f"10.0.0.{address}"))
            drain(guests, 0.1)
            run(guests)
            changes(process, guests, guests[0], guests[2])
        finally:
            for g in guests:
                os.close(g.fd)
            process.stdin.close()
            process.wait()
            shutil.rmtree(folder, ignore_errors=True)
    if process.returncode:
        sys.exit("FAIL: the networks did not go")


if __name__ == "__main__":
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    FLAGS = 0x1002  # IFF_TAP | IFF_NO_PI
    main(*sys.argv[1:])
