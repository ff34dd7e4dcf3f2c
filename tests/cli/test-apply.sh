#!/bin/bash
# strato apply and diff on the mount: create, change, delete with --prune; twice is nothing more.
. "$(dirname "$0")/../fs/lib-fs.sh"
start_fs
start_nbd
strato() {
        "$STRATO" "$1" --state "$T/state" --mount "$C" "${@:2}"
}
# diff says line by line what apply then does, and afterwards there is nothing left.
same() {
        expect_status 1 strato diff "$@"
        cp "$T/out" "$T/plan"
        expect_status 0 strato apply "$@"
        cmp "$T/plan" "$T/out" || fail "diff told: $(cat "$T/plan")"
        expect_status 0 strato diff "$@"
        is "nothing is left to do" "$(cat "$T/out")" ""
        expect_status 0 strato apply "$@"
        is "twice is once" "$(cat "$T/out")" ""
}

dd if=/dev/urandom of="$T/disk.raw" bs=1M count=2 status=none
cat >"$T/a.yaml" <<'END'
# whatever the order here: what is needed comes first
instances:
  web:
    flavor: small
    volumes: {vda: volumes/root, vdb: volumes/data}
    metadata:
      role: "front"
volumes:
  root: {size: 4M, source: images/disk, bootable: yes}
  data:
    size: 1G
    description: two words
images:
  disk: {file: disk.raw, format: raw}
END
same "$T/a.yaml"
is "order" "$(sed 's/ *[^ ]* *\([^ ]*\).*/\1/' "$T/plan" | tr '\n' ' ')" \
        "images/disk volumes/root volumes/data instances/web "
cmp images/disk/data "$T/disk.raw" || fail "the upload"
is "a link" "$(readlink instances/web/volumes/vdb)" ../../../volumes/data
is "metadata" "$(cat instances/web/metadata/role)" front
rev() {
        grep '"rev"' volumes/data/.json
}
before=$(rev)
expect_status 0 strato apply "$T/a.yaml"
is "what is so already makes no revision" "$(rev)" "$before"

# --- change; JSON; what is not named stays
cat >"$T/b.json" <<'END'
{"tenant": "default",
 "volumes": {"data": {"size": "2G", "description": "three small words"}},
 "instances": {"web": {"metadata": {"more": "1"}}}}
END
same "$T/b.json"
expect_text "$T/plan" "~ volumes/data size: 1073741824 -> 2G"
expect_text "$T/plan" "~ volumes/data description: two words -> three small words"
is "metadata that is not named stays" "$(cat instances/web/metadata/role)" front
is "links that are not named stay" "$(ls instances/web/volumes)" $'vda\nvdb'

# --- several files, null, and a disk that changes hands in one call
cat >"$T/c.yaml" <<'END'
instances:
  db: {flavor: small, volumes: {vda: volumes/data}}
END
echo 'instances: {web: {volumes: {vdb: null}}}' >"$T/d.yaml"
same "$T/c.yaml" "$T/d.yaml"
is "it changed hands" "$(readlink instances/db/volumes/vda)" ../../../volumes/data

# --- prune: only what is not described goes, users before what they use
volume stray 1M
expect_status 0 strato diff "$T/c.yaml"
cat >"$T/e.yaml" <<'END'
volumes:
  data: {size: 2G}
END
same --prune "$T/e.yaml"
expect_text "$T/plan" "- instances/db"
is "what is left" "$(ls -d volumes/*/ images/*/ instances/*/ 2>/dev/null)" volumes/data/

# --- failures: their words, the rest goes on, exit status 1
cat >"$T/f.yaml" <<'END'
volumes:
  bad: {size: 1Z}
  good: {size: 1M}
  clone: {source: volumes/bad}
  data: {size: 1M}
END
expect_status 1 strato apply "$T/f.yaml"
expect_text "$T/err" "strato apply: $T/f.yaml:2: volumes/bad: "
expect_text "$T/err" "strato apply: $T/f.yaml:4: volumes/clone: not done: it needs volumes/bad"
expect_text "$T/err" "strato apply: $T/f.yaml:5: volumes/data: "
expect_text "$T/out" "+ volumes/good size=1M"
is "all or nothing" "$(cat volumes/data/size)" 2147483648
# this mount has nothing to run guests with: a start waits for it, apply no longer than told
echo 'instances: {guest: {flavor: small, running: yes, volumes: {vda: volumes/data}}}' >"$T/run.yaml"
expect_status 1 strato diff "$T/run.yaml"
expect_text "$T/out" "~ instances/guest start"
expect_status 1 strato apply --timeout 1 "$T/run.yaml"
expect_text "$T/out" "~ instances/guest start"
expect_text "$T/err" "strato apply: $T/run.yaml:1: instances/guest: its job goes on after 1 s"
expect_status 0 strato apply - <<<'volumes: {data: {description: mine}}'
bad() {
        printf "$1" >"$T/bad.yaml"
        expect_status 2 strato apply "$T/bad.yaml"
        expect_text "$T/err" "$2"
}
bad 'volumes:\n  x: [1]\n' "bad.yaml: line 2: volumes/x: a map of KEY: VALUE"
bad 'volumes:\n  x:\n    size: [{}]\n' "line 3: a list holds values"
bad 'volumes:\n  v: {}\n  -x: {}\n' "bad.yaml: line 3: volumes: "
bad '{\n"volumes": {\n "x": 1}}' "bad.yaml: line 3: volumes/x: a map of KEY: VALUE"
bad '{"volumes": {"x": {"keep": [[]]}}}' "keep: a list holds values"
bad 'volumes: {}\nquota: 3\n' "bad.yaml: line 2: quota: a map"
bad 'volumes: {}\nquota: {stars: 3}\n' "quota: there is none of 'stars'"
bad 'tenant: default\n\nthings: {x: {}}\n' "bad.yaml:3: a tenant has no things"
bad 'volumes: &a {x: *a}\n' "anchors"
bad 'volumes:\n  x: {size: 1M}\n  x: {size: 2M}\n' "line 3: this key is there already"
bad 'volumes: {x: {size: 1M}\n' "line "
bad '{"volumes": {"x": 1}}' "volumes/x: a map of KEY: VALUE"
bad '{"volumes": {"../x": {}}}' "volumes: "
bad 'things: {x: {}}\n' "a tenant has no things"
bad '' "line "
{ printf 'x: '; printf '%0*d' 40 0 | sed 's/0/{a: /g'; } >"$T/bad.yaml"
expect_status 2 strato apply "$T/bad.yaml"
expect_text "$T/err" "too deep"
expect_status 1 strato apply "$T/missing"
expect_status 2 strato diff "$T/missing"
[ ! -e volumes/x ] || fail "a refused file left something"
expect_status 3 "$STRATO" diff --mount "$T/d" --state "$T/state" "$T/a.yaml"

# --- quotas, lists, and flavors for who may make them
cat >"$T/h.yaml" <<'END'
quota: {volumes: 9, volume_size: 1T, vcpus: max}
volumes:
  kept: {size: 1M, keep: [daily:7, weekly:4]}
END
same "$T/h.yaml"
expect_text "$T/plan" "~ quota volumes: max -> 9"
is "the quota" "$(grep '^volume_size' quota | cut -d' ' -f2)" limit=1099511627776
is "a list" "$(cat volumes/kept/keep)" "$(echo daily:7,weekly:4)"
echo '{"quota": {"volumes": "max", "volume_size": "max"}, "volumes": {"kept": {"keep": ["last:3"]}}}' >"$T/i.json"
same "$T/i.json"
is "a list in JSON" "$(cat volumes/kept/keep)" last:3
echo 'volumes: {kept: {snapshots: [one, two]}}' >"$T/k.yaml"
expect_status 1 strato diff "$T/k.yaml"
is "snapshots" "$(cat "$T/out")" $'~ volumes/kept snapshot one\n~ volumes/kept snapshot two'
echo 'volumes: {kept: {snapshots: ["no/name"]}}' >"$T/k.yaml"
expect_status 1 strato apply "$T/k.yaml"
echo 'quota: {volumes: many}' >"$T/bad.yaml"
expect_status 2 strato apply "$T/bad.yaml"
expect_text "$T/err" "quota: "
echo 'flavors: {wide: {vcpus: 8, memory: 1G}}' >"$T/j.yaml"
if [ "$(id -u)" = 0 ]; then
        same "$T/j.yaml"
        is "a flavor" "$(cat "$C/flavors/wide/vcpus")" 8
        echo 'flavors: {wide: {vcpus: 4}}' >"$T/j.yaml"
        same "$T/j.yaml"
        expect_text "$T/plan" "~ flavors/wide vcpus: 8 -> 4"
fi
# what is refused says its name once
expect_errno EBUSY 'echo 1 >volumes/kept/encrypted'
grep -q ": set encrypted: volume 'kept' is available" "$C/self/error" || fail "$(cat "$C/self/error")"

# --- a tenant that is not there
echo 'tenant: other' >"$T/g.yaml"
if [ "$(id -u)" = 0 ]; then
        expect_status 1 strato diff "$T/g.yaml"
        expect_text "$T/out" "+ tenants/other"
fi
end_fs
