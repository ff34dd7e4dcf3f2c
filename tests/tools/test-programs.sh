#!/bin/bash
# How programs read and write files: C's, Python's, Node's and Go's ways, call by call.
. "$(dirname "$0")/lib-tools.sh"
requires node /usr/bin/python3
begin programs
D=volumes/v/description
head='import os, sys, json, mmap, tempfile, shutil; V = \"volumes/v/\"; W = os.O_WRONLY | os.O_CREAT | os.O_TRUNC'
# way NOTE LINE: LINE is what is in the row, after `head`
py_row() {
        local how=$1 line=$2
        shift 2
        run "/usr/bin/python3 -c \"$head
$line\"" || fail "status $?: $line"
        row "$line" "$how" "$*"
}
way() {
        local want=$1 note=$2 line=$3
        py_row works "$line" "$note"
        [ "$want" = - ] || [ "$(cat $D)" = "$want" ] || fail "'$(cat $D)', not '$want': $line"
}
no_way() {
        local errno=$1 note=$2 line=$3
        ! run "/usr/bin/python3 -c \"$head
$line\"" || fail "succeeded: $line"
        grep -q "Errno $(/usr/bin/python3 -c "import errno; print(errno.$errno)")\]" "$T/err" ||
                fail "not $errno: $line"
        row "$line" "$errno" "$note"
}

# --- reading
way - "small reads: one version" "f = open(V + 'spec', 'rb', 0); a = b''.join(iter(lambda: f.read(7), b'')); assert a == open(V + 'spec', 'rb').read()"
way - "pread, seeks" "f = os.open(V + 'spec', 0); a = os.pread(f, 99, 5); os.lseek(f, 5, 0); assert a == os.read(f, 99); assert os.lseek(f, 0, 2) == os.stat(f).st_size"
way - "sendfile, splice" "f = os.open(V + 'spec', 0); r, w = os.pipe(); assert os.splice(f, w, 9999) == os.stat(f).st_size == os.sendfile(w, f, 0, 9999)"
way - "private mapping" "f = open(V + 'spec', 'rb'); assert mmap.mmap(f.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)[:] == f.read()"
no_way ENODEV "shared mapping: read it" "f = open(V + 'spec', 'rb'); mmap.mmap(f.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)"
way - "reads go on, from the start: now" "f = open(V + 'state', 'rb', 0); a = f.read(); f.seek(0); assert a == f.read() == b'in-use\\n'"

# --- writing
way one "" "open(V + 'description', 'w').write('one\\n')"
way two "append is no different" "open(V + 'description', 'a').write('two\\n')"
way 'in two pieces' "pieces of one line: each makes it longer" "f = os.open(V + 'description', W); os.write(f, b'in two '); os.write(f, b'pieces\\n')"
no_way EINVAL "a second line; the first is set" "f = os.open(V + 'description', W); os.write(f, b'first\\n'); os.write(f, b'second\\n')"
way third "over the first" "f = os.open(V + 'description', W); os.pwrite(f, b'second\\n', 0); os.pwrite(f, b'third\\n', 0)"
way rw "shorter, then cut behind it" "f = open(V + 'description', 'r+'); f.write('rw\\n'); f.truncate()"
way synced "" "f = os.open(V + 'description', W | os.O_SYNC); os.write(f, b'synced\\n'); os.fsync(f); os.fdatasync(f)"
way renamed "write, sync, rename: one write of it" "f = open(V + '.d', 'w'); f.write('renamed\\n'); f.flush(); os.fsync(f); os.replace(V + '.d', V + 'description')"
way named "Go's renameio, npm's write-file-atomic" "open(V + 'description.1234567', 'w').write('named\\n'); os.replace(V + 'description.1234567', V + 'description')"
way temp "" "f = tempfile.NamedTemporaryFile('w', dir=V, delete=False); f.write('temp\\n'); f.close(); os.replace(f.name, V + 'description')"
no_way EINVAL "the scratch file stays, the value too" "open(V + 'size.tmp', 'w').write('9Z\\n'); os.replace(V + 'size.tmp', V + 'size')"
way json "read, change, write as a whole" "s = json.load(open(V + 'spec')); s['description'] = 'json'; json.dump(s, open(V + 'spec', 'w'), indent=1)"
no_way EEXIST "attributes are there" "os.open(V + 'description', W | os.O_EXCL)"
no_way EOPNOTSUPP "" "os.open(V, os.O_TMPFILE | os.O_RDWR)"
no_way EPERM "the value is set; shutil.copyfile does not ask for modes" "shutil.copy('/etc/hostname', V + 'description')"
way text "" "shutil.copyfile(os.environ['O'] + '/text', V + 'description')"
way - "locks" "import fcntl; f = open(V + 'description', 'r+'); fcntl.flock(f, fcntl.LOCK_EX); fcntl.lockf(f, fcntl.LOCK_EX)"
way - "the answer on the same descriptor" "f = os.open('volumes/new', os.O_RDWR); os.write(f, b'name=py\\n'); assert os.read(f, 99).startswith(b'py ')"

# --- a metadata key is a small file
key() {
        local want=$1 note=$2
        way - "$note" "$3"
        [ "$(cat volumes/v/metadata/m)" = "$want" ] || fail "'$(cat volumes/v/metadata/m)', not '$want': $3"
}
key long "" "open(V + 'metadata/m', 'w').write('long\\n')"
key ab "shorter, then cut behind it" "f = open(V + 'metadata/m', 'r+'); f.write('ab\\n'); f.truncate()"
key c "cut to nothing first" "f = os.open(V + 'metadata/m', os.O_WRONLY); os.ftruncate(f, 0); os.write(f, b'c\\n')"
key $'c\n1\n2' "append" "f = os.open(V + 'metadata/m', os.O_WRONLY | os.O_APPEND); os.write(f, b'1\\n'); os.write(f, b'2\\n')"
key $'3\n4' "in pieces" "f = os.open(V + 'metadata/m', W); os.write(f, b'3\\n'); os.write(f, b'4\\n')"
key $'5\n6' "emptied and appended to" "f = os.open(V + 'metadata/m', W | os.O_APPEND); os.write(f, b'5\\n'); os.write(f, b'6\\n')"

# --- node
sets node "node -e 'fs.writeFileSync(\"volumes/v/description\", \"node\\n\")'"
sets node2 "node -e 'fs.appendFileSync(\"volumes/v/description\", \"node2\\n\")'"
says node2 "node -e 'process.stdout.write(fs.readFileSync(\"volumes/v/description\"))'"
says node2 "node -e 'fs.createReadStream(\"volumes/v/description\").pipe(process.stdout)'"
sets piped "node -e 'const w = fs.createWriteStream(\"volumes/v/description\"); w.write(\"pip\"); w.end(\"ed\\n\")'"
sets text "node -e 'fs.copyFileSync(process.env.O + \"/text\", \"volumes/v/description\")'"
refused EINVAL "node -e 'fs.writeFileSync(\"volumes/v/size\", \"9Z\")'"
finish
