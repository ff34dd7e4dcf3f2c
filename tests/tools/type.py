#!/usr/bin/python3
"""type.py COMMAND [SEEN KEYS]...: runs a full-screen program on a terminal of its own.

Each KEYS is typed once SEEN is on the screen since the last one; python's escapes (\\x0f) are
understood in KEYS.  Ends with the program's status, or 124 when something is not seen in 30 s."""
import codecs
import os
import pty
import select
import sys
import time


def read_until(fd, seen, deadline):
    """The screen's bytes until they hold `seen`, or the program ends."""
    got = b""
    while seen not in got:
        if not select.select([fd], [], [], max(0, deadline - time.monotonic()))[0]:
            sys.stderr.write("not seen: %s\n%r\n" % (seen.decode(), got[-2000:]))
            return False
        try:
            more = os.read(fd, 4096)
        except OSError:
            more = b""
        if not more:
            return False
        got += more
    return True


def main():
    pid, fd = pty.fork()
    if not pid:
        os.environ["TERM"] = "vt100"
        os.environ.update(LINES="24", COLUMNS="80")
        os.execvp("sh", ["sh", "-c", "stty rows 24 cols 80; exec " + sys.argv[1]])
    for seen, keys in zip(sys.argv[2::2], sys.argv[3::2]):
        if not read_until(fd, seen.encode(), time.monotonic() + 30):
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            return 124
        os.write(fd, codecs.escape_decode(keys.encode())[0])
    read_until(fd, b"\0never\0", time.monotonic() + 30)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


sys.exit(main())
