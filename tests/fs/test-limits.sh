#!/bin/bash
# A volume's limits and its stats folder, with a volume service that only remembers.
. "$(dirname "$0")/lib-fs.sh"
start_fs
volume v
volume w
id=$(cat volumes/v/id)

# --- limits
is "no limits" "$(cat volumes/v/{iops,bandwidth,iops_burst,bandwidth_burst,burst_seconds} | tr '\n' ' ')" \
        "max max 0 0 0 "
limits() {
        wait_until 20 grep -qsx "$1" "$T/d/limits-$id" || fail "not in force: $1"
        ok "in force: $1"
}
expect "iops" bash -c 'echo 500 >volumes/v/iops'
limits "500 0 0 0 0"
expect "bandwidth" bash -c 'echo 10M >volumes/v/bandwidth && echo 900 >volumes/v/iops_burst'
limits "500 10485760 900 0 0"
expect "what is read can be written" bash -c 'cp volumes/v/bandwidth volumes/w/bandwidth'
expect "unlimited" bash -c 'echo max >volumes/v/bandwidth'
limits "500 0 900 0 0"
expect_text volumes/v/spec '"iops": 500'
expect_text volumes/v/spec '"bandwidth": "max"'
expect_errno EINVAL 'echo 0 >volumes/v/iops'
expect_errno EINVAL 'echo 5Z >volumes/v/bandwidth'
expect_errno EINVAL 'echo 1 >volumes/v/bandwidth'
expect_errno EINVAL 'echo max >volumes/v/iops_burst'
is "nothing changed" "$(cat volumes/v/iops)" 500
if [ "$(id -u)" = 0 ]; then
        member="setpriv --reuid=65534 --regid=65534 --groups=$G"
        is "members read" "$($member cat volumes/v/iops)" 500
        expect_errno EACCES $member bash -c 'echo 600 >volumes/v/iops'
        expect_errno EPERM $member bash -c "echo '{\"iops\": 600}' >volumes/v/spec"
        expect_text volumes/v/error "admins only"
        expect "a spec that says the same" $member bash -c \
                "echo '{\"iops\": 500, \"description\": \"x\"}' >volumes/v/spec"
fi

# --- figures
is "the folder" "$(ls -U volumes/v/stats | head -n 5 | tr '\n' ' ')" "all latency as_of since in_flight "
is "its files" "$(ls volumes/v/stats | grep -c _ops)" 7
wait_until 20 sh -c '! grep -q ^1970 volumes/v/stats/as_of' || fail "looking has them fetched"
is "nothing was done yet" "$(cat volumes/v/stats/read_ops volumes/v/stats/latency)" 0
echo "$id 42" >"$T/d/stats"
wait_until 20 grep -qx 42 volumes/v/stats/read_ops || fail "42 reads"
is "bytes, errors, time" "$(cd volumes/v/stats && cat read_bytes read_errors read_usec in_flight | tr '\n' ' ')" \
        "4096 1 500 3 "
is "latency" "$(cat volumes/v/stats/latency)" "read 512 42"
expect_text volumes/v/stats/all "read_ops 42"
expect_text volumes/v/stats/since 2023-11-14
is "another volume" "$(cat volumes/w/stats/read_ops)" 0
is "mode of the folder" "$(stat -c %a volumes/v/stats)" 550
is "mode of a file" "$(stat -c %a volumes/v/stats/read_ops)" 440
inode=$(stat -c %i volumes/v/stats)
echo 3 >/proc/sys/vm/drop_caches 2>/dev/null
is "node ids are stable" "$(stat -c %i volumes/v/stats)" "$inode"
expect_errno ENOENT cat volumes/v/read_ops
expect_errno ENOENT cat volumes/v/stats/size
if [ "$(id -u)" = 0 ]; then
        is "members look" "$($member cat volumes/v/stats/read_ops)" 42
        expect_errno EACCES setpriv --reuid=65534 --regid=65534 --clear-groups ls volumes/v/stats
fi
# Root passes every mode: these are refused by us.
expect_errno EACCES 'echo 1 >volumes/v/stats/read_ops'
expect_errno EPERM touch volumes/v/stats/new
expect_errno EPERM mkdir volumes/v/stats/new
expect_errno EPERM rm -f volumes/v/stats/read_ops
expect_errno EPERM rmdir volumes/v/stats
expect_errno EPERM mv volumes/v/stats volumes/v/metadata/stats
expect_errno EPERM ln -s x volumes/v/stats/link

# --- looking is free: the service hangs, reads do not
mkfifo "$T/d/hang"
rm "$T/d/asked"
wait_until 20 sh -c "cat volumes/v/stats/as_of >'$T/as_of' && test -e '$T/d/asked'" ||
        fail "nobody asks while we look"
for i in 1 2 3; do
        expect "a read meanwhile" cat volumes/v/stats/read_ops
done
cat volumes/v/stats/as_of >"$T/as_of"
is "of a while ago" "$(cat volumes/v/stats/as_of)" "$(cat "$T/as_of")"
mv "$T/d/hang" "$T/d/hung"
: >"$T/d/hung" # opened for writing: it goes on
wait_until 20 sh -c "! cmp -s volumes/v/stats/as_of '$T/as_of'" || fail "it does not go on"
ok "it goes on"
expect "rmdir takes it all" rmdir volumes/v
end_fs
