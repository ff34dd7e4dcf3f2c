#!/usr/bin/python3
"""Load on a mount whose daemon is killed meanwhile: hold-load.py MOUNT KILLS PID-COMMAND...

Every thread does what a program does and remembers what it was answered; whatever is not as without
a kill is a failure.  Ends when the daemon was killed so often and everybody has got on since."""
import os, random, select, signal, subprocess, sys, threading, time

mount, kills, pid_command = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
tenant = mount + "/tenants/default"
failures, stop = [], threading.Event()
progress = {}
random.seed(7)


def text(path):
    with open(path, "rb", buffering=0) as f:
        return f.read(1 << 20).decode()


def loop(name):
    """Runs the function again and again; what it raises is a failure."""
    def decorate(once):
        def run():
            while not stop.is_set():
                try:
                    once()
                except Exception as e:
                    failures.append(f"{name}: {e!r}")
                    return
                progress[name] = progress.get(name, 0) + 1
        thread = threading.Thread(target=run, name=name)
        progress[name] = 0
        threads.append(thread)
        return once
    return decorate


threads = []
size = 4 << 20
image = random.randbytes(2 << 20)
disk = os.open(tenant + "/volumes/disk/data", os.O_RDWR)
held = os.open(tenant + "/volumes/v/id", os.O_RDONLY)
identity = os.read(held, 100)
follow = os.open(tenant + "/.follow", os.O_RDONLY)
acknowledged = {}


@loop("read")
def read():
    assert text(tenant + "/volumes/v/state") == "available\n"
    assert os.pread(held, 100, 0) == identity
    assert "volumes/v" in text(tenant + "/index")


@loop("list")
def listing():
    names = os.listdir(tenant + "/volumes")
    assert {"v", "disk", "help", "new"} <= set(names), names
    for entry in os.scandir(tenant + "/volumes/v"):
        entry.stat(follow_symlinks=False)


@loop("write")
def write():
    n = str(acknowledged.get("n", 0) + 1)
    with open(tenant + "/volumes/v/metadata/n", "w") as f:
        f.write(n)
    assert text(tenant + "/volumes/v/metadata/n") == n
    acknowledged["n"] = int(n)


@loop("attribute")
def attribute():
    # what the kernel keeps of it is never that of before
    value = "x" * random.randrange(1, 100)
    with open(tenant + "/volumes/v/description", "w") as f:
        f.write(value)
    assert os.stat(tenant + "/volumes/v/description").st_size == len(value) + 1
    assert text(tenant + "/volumes/v/description") == value + "\n"


@loop("make")
def make():
    # each is refused when it is carried out twice
    path = tenant + "/volumes/made"
    os.mkdir(path)
    assert text(path + "/state") == "draft\n"
    os.rename(path, path + "-2")
    os.rmdir(path + "-2")


@loop("new")
def new():
    name = "new-%d" % progress["new"]
    with open(tenant + "/volumes/new", "r+b", buffering=0) as f:
        f.write(f"name={name} size=1M\n".encode())
        answer = f.read(200).decode()
    assert answer == f"{name} {text(f'{tenant}/volumes/{name}/id')}", answer
    assert text(f"{tenant}/volumes/{name}/.wait/available@60") == "available\n"
    os.rmdir(f"{tenant}/volumes/{name}")


@loop("copy")
def copy():
    block = os.urandom(256 << 10)
    at = random.randrange(size // len(block)) * len(block)
    assert os.pwrite(disk, block, at) == len(block)
    assert os.pread(disk, len(block), at) == block, "other bytes"


@loop("dd")
def dd():
    subprocess.run(["dd", "if=/dev/zero", "of=" + tenant + "/volumes/other/data", "bs=128k", "count=8",
                    "conv=notrunc,fsync", "status=none"], check=True)


@loop("upload")
def upload():
    # slower than a kill, at an even pace
    n, sent = progress["upload"], 0
    with open(f"{tenant}/images/image-{n}.raw", "wb", buffering=0) as f:
        while sent < len(image) and not stop.is_set():
            sent += f.write(image[sent:sent + (64 << 10)])
            time.sleep(0.01)
    path = f"{tenant}/images/image-{n}"
    if sent == len(image):
        assert text(path + "/.wait/active@60") == "active\n"
        with open(path + "/data", "rb") as f:
            assert f.read() == image, "another image"
    os.rmdir(path)


def waiter():
    """Parked for the whole time."""
    try:
        said.append(text(tenant + "/volumes/waited/.wait/gone"))
    except OSError as e:
        failures.append(f"wait: {e!r}")


def follower():
    try:
        while data := os.read(follow, 4096):
            followed.append(data)
            if b"volumes/last" in data:
                return
    except OSError as e:
        failures.append(f"follow: {e!r}")


def poller():
    """A change of state wakes who polls, whoever promised it."""
    try:
        fd = os.open(tenant + "/volumes/waited/state", os.O_RDONLY)
        p = select.poll()
        p.register(fd, select.POLLPRI)
        while not said:
            for _ in p.poll(60000) or [failures.append("poll: nobody woke it")]:
                if os.pread(fd, 100, 0) != b"available\n":
                    return
    except OSError as e:
        if "stale" not in str(e).lower() and "No such" not in str(e):
            failures.append(f"poll: {e!r}")


said, followed, gaps = [], [], []
others = [threading.Thread(target=t) for t in (waiter, follower, poller)]
tail = subprocess.Popen(["tail", "-n", "+1", "-f", tenant + "/events"], stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE)
shell = subprocess.Popen(["sh"], cwd=tenant + "/volumes/v", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         text=True, bufsize=1)
for t in threads + others:
    t.start()


def get_on(seconds):
    """Until each loop has gone round twice."""
    before, end = dict(progress), time.monotonic() + seconds
    while any(progress[n] < before[n] + 2 for n in progress) and not failures:
        if time.monotonic() > end:
            failures.append("no progress: " + ", ".join(n for n in progress if progress[n] < before[n] + 2))
        time.sleep(0.01)


for kill in range(kills):
    if kill % 5 == 0:
        get_on(60)
    else:
        time.sleep(random.uniform(0.02, 0.3))
    if failures:
        break
    pid = int(subprocess.check_output(pid_command))
    os.kill(pid, signal.SIGKILL)
    begin = time.monotonic()
    version = text(mount + "/version")
    gaps.append(time.monotonic() - begin)
    shell.stdin.write("cat id && pwd\n")
    answer = shell.stdout.readline() + shell.stdout.readline()
    if answer != identity.decode() + tenant + "/volumes/v\n":
        failures.append(f"the shell in the tree said {answer!r}")
get_on(60)
stop.set()
for t in threads:
    t.join(60)
os.rmdir(tenant + "/volumes/waited")
os.mkdir(tenant + "/volumes/last")
for t in others:
    t.join(60)
shell.stdin.close()
shell.wait()
deadline = time.monotonic() + 30
seen = b""
os.set_blocking(tail.stdout.fileno(), False)
while b"volumes/last created" not in seen and time.monotonic() < deadline:
    seen += tail.stdout.read() or b""
    time.sleep(0.05)
tail.kill()
if b"volumes/last created" not in seen:
    failures.append("tail -f saw nothing of the end: " + repr(tail.stderr.read()))
if said != ["gone\n"]:
    failures.append(f".wait said {said}")
if b"volumes/last created" not in b"".join(followed):
    failures.append(".follow saw nothing of the end")
if any(t.is_alive() for t in threads + others):
    failures.append("somebody hangs: " + ", ".join(t.name for t in threads + others if t.is_alive()))
if int(text(tenant + "/volumes/v/metadata/n")) != acknowledged["n"]:
    failures.append("an acknowledged write is lost")
gaps.sort()
print("rounds:", progress)
if gaps:
    print("no answer for %.0f ms (median), %.0f ms at most" % (gaps[len(gaps) // 2] * 1e3, gaps[-1] * 1e3))
for f in failures:
    print("FAILURE:", f)
if failures:
    print(text(tenant + "/errors"))
os._exit(1 if failures else 0)
