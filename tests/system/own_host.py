"""A host of one's own for the tests that need a libvirtd: mounts, processes, libvirtd and a cloud that
no other test meets, and that are gone with the one process that began them.

enter(FILE) first; T is a folder, C the mount.
"""
import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

BUILD = os.environ["BUILD"]
SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
STRATO = BUILD + "/cli/strato"
SETTLE = 90  # seconds
LIBVIRT = "qemu:///system"
T = tempfile.mkdtemp(prefix="st.", dir=os.environ.get("TMPDIR", "/tmp")) \
    if os.environ.get("STRATOFS_INNER") else ""
C = T + "/cloud"


def own_namespaces(file):
    """Runs the file again, alone."""
    if os.environ.get("STRATOFS_INNER") == "1":
        return
    os.environ["STRATOFS_INNER"] = "1"
    os.execvp("unshare", ["unshare", "-m", "-p", "--fork", "--mount-proc", "--propagation", "private",
                          sys.executable, os.path.abspath(file)] + sys.argv[1:])


def be_init():
    """Goes on in a child; this process reaps what nobody else does, and ends with it."""
    pid = os.fork()
    if pid == 0:
        return
    while True:
        child, status = os.wait()
        if child == pid:
            os._exit(os.waitstatus_to_exitcode(status) & 255)


def fail(words):
    print("FAIL: " + words, flush=True)
    for path in (T + "/state/log/stratod.log", T + "/libvirtd.log"):
        if os.path.exists(path):
            print("--- " + path)
            print("".join(open(path, errors="replace").readlines()[-40:]), flush=True)
    sys.exit(1)


def await_(words, check, seconds=SETTLE):
    end = time.monotonic() + seconds
    why = None
    while True:
        try:
            why = check()
        except OSError as e:
            why = str(e)
        if why is None or why is True:
            return
        if time.monotonic() > end:
            fail("%s: %s" % (words, why))
        time.sleep(0.05)


def read(path):
    with open(path) as f:
        return f.read().strip()


def write(path, text):
    with open(path, "w") as f:
        f.write(text + "\n")


def run(*words, **more):
    return subprocess.run(words, capture_output=True, text=True, **more)


# --- the host

def processes(name):
    """pids of this namespace whose program is so called."""
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            words = open(path, "rb").read().split(b"\0")
        except OSError:
            continue
        if os.path.basename(words[0].decode()) == name:
            found.append(int(path.split("/")[2]))
    return found


def is_gone(pid):
    return not os.path.exists("/proc/%d" % pid)


def kill(pids, sig):
    for pid in pids:
        try:
            os.kill(pid, sig)
        except ProcessLookupError:
            pass


def libvirtd_up():
    with open(T + "/libvirtd.log", "ab") as log:
        for name in ("virtlogd", "libvirtd"):
            if not processes(name):
                subprocess.run([name, "-d", "-p", "/run/libvirt/%s.pid" % name], stdout=log,
                               stderr=log, check=True)
    await_("libvirtd answers", lambda: run("virsh", "-c", LIBVIRT, "version").returncode == 0, 120)


def libvirtd_kill():
    pids = processes("libvirtd")
    kill(pids, signal.SIGKILL)
    await_("libvirtd is dead", lambda: all(map(is_gone, pids)) or "it runs", 30)


def cloud_up(**env):
    r = run(STRATO, "up", "--state", T + "/state", "--mount", C, env=dict(os.environ, **env))
    if r.returncode:
        fail("strato up: " + r.stderr)


def cloud_down():
    os.chdir("/")
    run(STRATO, "down", "--guests", "--force", "--state", T + "/state", "--mount", C)
    subprocess.run(["umount", "-l", C], stderr=subprocess.DEVNULL, check=False)


def enter(file):
    """A machine without what the test needs is told so, by meson's status of a skipped test."""
    if os.geteuid() or not all(map(shutil.which, ("libvirtd", "virtlogd", "virsh", "unshare",
                                                  "qemu-system-x86_64"))):
        print("SKIP: root, libvirtd, virsh and QEMU are needed")
        sys.exit(1 if os.environ.get("CI") == "true" else 77)
    own_namespaces(file)
    for d in ("/run/libvirt", "/var/lib/libvirt", "/var/log/libvirt"):
        os.makedirs(d, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "l", d], check=True)
    subprocess.run("mkdir /run/libvirt/.etc && cp -a /etc/libvirt/. /run/libvirt/.etc && "
                   "mount --bind /run/libvirt/.etc /etc/libvirt && "
                   "'%s/tests/qemu-conf' >>/etc/libvirt/qemu.conf" % SOURCE, shell=True, check=True)
    be_init()
    os.chmod(T, 0o711)
    os.mkdir(C)


def leave():
    cloud_down()
    subprocess.run(["rm", "-rf", "--one-file-system", T], check=False)


def virsh_state(uuid):
    r = run("virsh", "-q", "-c", LIBVIRT, "domstate", uuid)
    if r.returncode:
        return "absent" if "failed to get domain" in r.stderr else "unknown: " + r.stderr.strip()
    word = r.stdout.strip()
    return {"shut off": "absent", "crashed": "absent"}.get(word, word)


def blockd(**request):
    """One request to blockd's control socket, and its answer."""
    s = socket.socket(socket.AF_UNIX)
    s.connect(T + "/state/run/blockd.sock")
    s.sendall(json.dumps(request).encode() + b"\n")
    answer = json.loads(s.makefile().readline())
    if not answer["ok"]:
        fail("blockd: %s" % answer)
    return answer


def new_flavors(**memory):
    for flavor, size in memory.items():
        os.mkdir("%s/flavors/%s" % (C, flavor))
        write("%s/flavors/%s/memory" % (C, flavor), size)


def new_image(name):
    """A disk that no guest boots from: it stands in its BIOS, and is soon there."""
    path = "%s/%s.raw" % (T, name)
    with open(path, "wb") as f:
        f.write(b"no boot sector".ljust(1 << 20, b"."))
    shutil.copyfile(path, "%s/tenants/default/images/%s.raw" % (C, name))
    await_("image", lambda: read("%s/tenants/default/images/%s/state" % (C, name)) == "active" or "no")
