#!/bin/bash
# Nothing that the kernel keeps of the tree is ever another than what was acknowledged.
. "$(dirname "$0")/lib-fs.sh"

start_fs "$T/backdoor"

# After a second look nothing is asked: what the daemon's requests are counted by is its own time.
mkdir volumes/calm
echo words >volumes/calm/description
is "a size is the new one" "$(stat -c %s volumes/calm/description)" 6
printf 'describe calm other words\n' | socket "$T/backdoor" >"$T/answer"
is "the daemon changed it" "$(cut -d' ' -f1 <"$T/answer")" 0
is "and that is seen" "$(stat -c %s volumes/calm/description)" 12
ls volumes >"$T/list"
printf 'create late\n' | socket "$T/backdoor" >"$T/answer"
is "a new name is listed" "$(ls volumes | grep -c late)" 1
stat volumes/late/size >/dev/null || fail "late/size is not there"
printf 'rename late later\n' | socket "$T/backdoor" >"$T/answer"
is "a new name is found" "$(stat -c %F volumes/later)" directory
! stat volumes/late 2>"$T/err" || fail "the old name is there still"
ok "the old one is not"
printf 'delete later\n' | socket "$T/backdoor" >"$T/answer"
! stat volumes/later 2>"$T/err" || fail "what was deleted is there still"
grep -q "No such file" "$T/err" || fail "$(cat "$T/err")"
ok "nor is what was deleted"

"$BUILD/tests/fs/stress" "$C/tenants/default/volumes" "$T/backdoor" "${STRESS_SECONDS:-10}" ||
        fail "stale or stuck"
ok "16 threads for a while"
end_fs
