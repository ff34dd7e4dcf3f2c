#!/usr/bin/python3
"""screen.py COMMAND ACTION...: runs a full-screen program on a terminal of its own, which is drawn here.

    see REGEX    until the screen, lines joined by newlines, holds it: 30 seconds at most
    key KEYS     types them; python's escapes (\\x1b[C) are understood
    size RxC     the terminal gets that size
    on COMMAND   runs another command meanwhile, which must succeed
    signal N     to the program

Ends with the program's status; 124, and the screen on stderr, when something is not seen."""
import codecs
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

SEQUENCE = re.compile(rb"\x1b\[([?0-9;]*)([A-Za-z])|\x1b[()][A-Z0-9]|\x1b[=>78M]|[\x0e\x0f\x07]")
PARTIAL = re.compile(rb"\x1b(\[[?0-9;]*|[()])?$")


class Screen:
    """What a vt100 shows of the bytes that a program of ncurses writes."""

    def __init__(self, rows, columns):
        self.rest = b""
        self.resize(rows, columns)

    def resize(self, rows, columns):
        self.rows, self.columns, self.y, self.x = rows, columns, 0, 0
        self.lines = [[" "] * columns for _ in range(rows)]

    def text(self):
        return "\n".join("".join(line).rstrip() for line in self.lines)

    def erase(self, what, kind):
        span = [(self.x, self.columns), (0, self.x + 1), (0, self.columns)][kind]
        self.lines[self.y][span[0]:span[1]] = [" "] * (span[1] - span[0])
        if what == b"J":
            for y in [range(self.y + 1, self.rows), range(self.y), range(self.rows)][kind]:
                self.lines[y] = [" "] * self.columns

    def control(self, args, what):
        n = [int(a) if a else 0 for a in args.split(b";")] if not args.startswith(b"?") else [0]
        step = max(n[0], 1)
        if what == b"H":
            self.y, self.x = step - 1, max(n[1] if len(n) > 1 else 1, 1) - 1
        elif what in b"ABCD":
            self.y += {b"A": -step, b"B": step}.get(what, 0)
            self.x += {b"C": step, b"D": -step}.get(what, 0)
        elif what in b"JK":
            self.erase(what, n[0])
        self.y = min(max(self.y, 0), self.rows - 1)
        self.x = min(max(self.x, 0), self.columns - 1)

    def put(self, char):
        if char == "\r":
            self.x = 0
        elif char == "\n":
            self.y = min(self.y + 1, self.rows - 1)
        elif char == "\b":
            self.x = max(self.x - 1, 0)
        elif char >= " ":
            self.lines[self.y][min(self.x, self.columns - 1)] = char
            self.x += 1

    def feed(self, data):
        data = self.rest + data
        partial = PARTIAL.search(data)
        self.rest = data[partial.start():] if partial else b""
        data = data[:partial.start()] if partial else data
        at = 0
        for m in SEQUENCE.finditer(data):
            for char in data[at:m.start()].decode("ascii", "replace"):
                self.put(char)
            at = m.end()
            if m[2]:
                self.control(m[1], m[2])
        for char in data[at:].decode("ascii", "replace"):
            self.put(char)


def pump(fd, screen, seconds):
    """Feeds the screen once; false when the program is gone."""
    if not select.select([fd], [], [], max(seconds, 0))[0]:
        return True
    try:
        data = os.read(fd, 65536)
    except OSError:
        data = b""
    screen.feed(data)
    return bool(data)


def see(fd, screen, regex):
    end = time.monotonic() + 30
    while not re.search(regex, screen.text(), re.M):
        if not pump(fd, screen, end - time.monotonic()) or time.monotonic() > end:
            return False
    return True


def resize(fd, screen, size):
    rows, columns = map(int, size.split("x"))
    screen.resize(rows, columns)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def main():
    screen = Screen(24, 80)
    pid, fd = pty.fork()
    if not pid:
        os.environ["TERM"] = "vt100"
        for name in ("LINES", "COLUMNS"):
            os.environ.pop(name, None)
        os.execvp("sh", ["sh", "-c", "stty rows 24 cols 80; exec " + sys.argv[1]])
    for what, word in zip(sys.argv[2::2], sys.argv[3::2]):
        if what == "see" and not see(fd, screen, word):
            sys.stderr.write("not seen: %s\n%s\n" % (word, screen.text()))
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            return 124
        if what == "key":
            os.write(fd, codecs.escape_decode(word.encode())[0])
        elif what == "size":
            resize(fd, screen, word)
        elif what == "on":
            subprocess.run(word, shell=True, check=True)
        elif what == "signal":
            os.kill(pid, int(word))
    end = time.monotonic() + 30
    while pump(fd, screen, end - time.monotonic()):
        if time.monotonic() > end:
            os.kill(pid, 9)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


sys.exit(main())
