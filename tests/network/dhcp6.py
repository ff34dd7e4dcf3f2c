#!/usr/bin/python3
"""dhcp6.py DEVICE MAC: asks for an address by DHCPv6 (SOLICIT), and prints the one that is offered."""
import socket, struct, sys

device = sys.argv[1]
mac = bytes.fromhex(sys.argv[2].replace(":", ""))
index = socket.if_nametoindex(device)
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
s.bind(("::", 546))
s.settimeout(2)


def option(code, data):
    return struct.pack("!HH", code, len(data)) + data


ask = (b"\x01\x12\x34\x56" + option(1, b"\x00\x03\x00\x01" + mac) + option(8, b"\x00\x00")
       + option(3, struct.pack("!III", 1, 0, 0)))
for attempt in range(15):
    try:
        s.sendto(ask, ("ff02::1:2", 547, 0, index))
        answer = s.recv(2000)
    except OSError:
        continue
    at = 4
    while at + 4 <= len(answer):
        code, n = struct.unpack_from("!HH", answer, at)
        if code == 3 and n >= 12 + 4 + 16 and answer[at + 16:at + 18] == b"\x00\x05":
            print(socket.inet_ntop(socket.AF_INET6, answer[at + 20:at + 36]))
            sys.exit(0)
        at += 4 + n
sys.exit("nobody offers an address")
