#!/usr/bin/python3
"""Writes the seed inputs of the fuzz target `tree`: corpus.py DIR.

Kinds, objects and parts go by number, so each text is tried in many places."""
import os
import sys

TEXTS = {
    "names": [("c", k, 0, 0, f"x{k}") for k in range(24)] + [("C", k, 9 + k, 0, "y") for k in range(24)],
    "new": [("n", k, 0, 0, t) for k in range(24) for t in (
        "name=v size=1M", '{"name": "w", "size": "1M", "metadata": {"a": "b"}}', "name=", "{", "[]",
        "name=a name=a", "token=t name=q")],
    "attributes": [("s", 0, o, a, t) for o in range(0, 24, 3) for a in (0, 1, 2, 3, 5, 8, 13, 21)
                   for t in ("1M", "max", "yes", "text", "-1", "", "1 2")],
    "verbs": [("c", 5, 0, 0, "v"), ("c", 8, 0, 0, "i")] + [("v", 0, o, 0, t) for o in range(8, 30) for t in (
        "start", "stop 5", "reset", "cancel", "snapshot s", "resize tiny", "revert s", "lock", "shrink 1M",
        "send-key ctrl alt del", "set-password root x", "offer", "image x", "backup b keep=3")][:60],
    "spec": [("a", 0, o, 0, t) for o in range(12, 32) for t in (
        '{"size": "1M"}', '{"metadata": {"k": "v"}, "flavor": "tiny"}', '{"volumes": {"vda": "volumes/v"}}')],
    "links": [("c", 5, 0, 0, "v"), ("c", 8, 0, 0, "i")] + [("l", 0, o, p, t) for o in range(10, 26)
              for p in (0, 1, 2) for t in ("vda ../../volumes/v", "x ../../../../..")][:56],
    "lists": [("w", 0, o, f, t) for o in range(0, 32, 2) for f in range(4) for t in (
        "volumes 5", "volumes max", "+in tcp 22", "-in tcp 22", "in udp 53 from 10.0.0.0/8", "instances -1")][:62],
    "meta": [("m", 0, o, 0, "value\x01more") for o in range(8, 40)] + [("r", 0, o, 0, "z") for o in range(8, 40)],
    "away": [("c", k, 0, 0, "x") for k in range(3, 12)] + [("d", 0, o, 0, "") for o in range(8, 40)],
    "others": [("c", 5, 0, 0x80, "v"), ("s", 0, 12, 0x82, "1M"), ("v", 0, 12, 0x80, "start"), ("a", 0, 12, 0x80, "{}")],
}


def main(top):
    os.makedirs(top, exist_ok=True)
    for name, steps in TEXTS.items():
        with open(os.path.join(top, name), "wb") as f:
            for what, kind, no, part, text in steps:
                # A part of 10 would be a newline, which ends the step.
                f.write(what.encode() + bytes(b + (b == 10) for b in (kind, no, part)) + text.encode() + b"\n")


main(sys.argv[1])
