#!/bin/bash
# The command line: what is refused, with which words and which exit status.
. "$(dirname "$0")/../lib.sh"
export HOME=$T

expect_status 2 "$STRATO"
expect_text "$T/err" "usage: strato VERB"
expect_status 2 "$STRATO" bake
expect_text "$T/err" "there is no verb 'bake'"
expect_status 0 "$STRATO" --help
for verb in up down status wait doctor top; do
        expect_text "$T/out" "  $verb"
done
for verb in up down status wait doctor top serve; do
        expect_status 0 "$STRATO" $verb --help
        expect_text "$T/out" "usage: strato $verb"
done
expect_status 0 "$STRATO" --version
grep -qE '^strato [0-9]+\.[0-9]+\.[0-9]+$' "$T/out" || fail "what version is that"

expect_status 2 "$STRATO" status --state
expect_text "$T/err" "--state wants a value"
expect_status 2 "$STRATO" status --state=
expect_text "$T/err" "--state wants a value"
expect_status 2 "$STRATO" status --loud
expect_text "$T/err" "unknown option --loud"
expect_text "$T/err" "try: strato status --help"
# An option of another verb is no option of this one.
expect_status 2 "$STRATO" status --guests
expect_status 2 "$STRATO" up --once
expect_status 2 "$STRATO" up now
expect_text "$T/err" "too many words"
expect_status 2 "$STRATO" wait instances/web
expect_text "$T/err" "too few words"
expect_text "$T/err" "strato wait PATH STATE"
for seconds in x -1 1s 99999999999999999999; do
        expect_status 2 "$STRATO" wait a b --timeout=$seconds
        expect_text "$T/err" "--timeout wants seconds"
        expect_text "$T/err" "^"
done
expect_status 2 "$STRATO" serve cupsd
expect_text "$T/err" "no daemon of ours"

# Sockets' names have an end.
long=$T/$(printf 'x%.0s' {1..80})
expect_status 1 "$STRATO" up --state "$long"
expect_text "$T/err" "too long for the sockets"
[ ! -e "$long" ] || fail "a refused state folder was made"

# Waiting for what is not there, or no object at all.
expect_status 1 "$STRATO" wait "$T/nothing" active
expect_text "$T/err" "No such file or directory"
mkdir "$T/plain"
expect_status 2 "$STRATO" wait "$T/plain" active
expect_text "$T/err" "no object of a cloud"
touch "$T/file"
expect_status 2 "$STRATO" wait "$T/file" active
expect_status 2 "$STRATO" wait "$T/plain" ../active
# An object by its looks: the state is not one it can have.
echo draft >"$T/plain/state"
expect_status 2 "$STRATO" wait "$T/plain/" boiled
expect_text "$T/err" "'$T/plain' never is 'boiled'"
# A wait is a read until the end.
mkdir "$T/plain/.wait"
: >"$T/plain/.wait/active"
expect_status 0 "$STRATO" wait "$T/plain" active
: >"$T/plain/.wait/active@7"
expect_status 0 "$STRATO" wait "$T/plain" active --timeout 7
# A server that never answers does not hold strato past the time.
mkfifo "$T/plain/.wait/slow@0"
expect_status 124 "$STRATO" wait "$T/plain" slow --timeout 0
expect_text "$T/err" "is 'draft' after 0 s, not 'slow'"
ok "all"
