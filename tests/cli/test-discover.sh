#!/bin/bash
# What one finds by Tab and `help`: all of it is true of the kinds.
. "$(dirname "$0")/../fs/lib-fs.sh"
requires zsh
start_fs
start_nbd
strato() {
        "$STRATO" "$1" --state "$T/state" --mount "$C" "${@:2}"
}
mkdir "$T/bin"
ln -s "$STRATO" "$T/bin/strato"
PATH=$T/bin:$PATH

# --- help is in every collection, the root's names them all
for kind in "$C" "$C"/*/ "$C"/tenants/default/*/; do
        [ -e "$kind/new" ] || continue
        [ -s "$kind/help" ] || fail "no help in $kind"
        name=$(basename "$kind")
        grep -q "^$name: " "$kind/help" || fail "$kind/help does not say what $name are"
        grep -q "^  $name " "$C/help" || fail "$C/help does not name $name"
done
for level in "$C/tenants/default" "$C/admin"; do
        for kind in "$level"/*/; do
                [ ! -e "$kind/new" ] || grep -q "^  $(basename "$kind") " "$level/help" ||
                        fail "$level/help does not name $kind"
        done
done
ok "help"

# --- strato complete: verbs and options are those that there are
for verb in $("$STRATO" complete ''); do
        expect_status 0 "$STRATO" "$verb" --help
        for option in $("$STRATO" complete "$verb" -- | grep -v '^--$'); do
                grep -qe "  $option" "$T/out" || fail "$verb has no $option"
        done
done
[ "$("$STRATO" complete '' | wc -l)" -gt 10 ] || fail "no verbs"
is "verbs by their beginning" "$("$STRATO" complete st)" status

# --- what is offered on the mount is what the kinds have, all of it, and nothing else
volume v
is "the verbs that are legal now" "$("$STRATO" complete ctl volumes/v '')" \
        "$(cut -d' ' -f1 volumes/v/ctl)"
is "states" "$("$STRATO" complete wait volumes/v in)" in-use
checked=0
for collection in volumes images instances backups; do
        for key in $("$STRATO" complete new $collection x ''); do
                # a key that is none is refused with these words; a value that is none in others
                case $key in
                *=) line="name=probe-of-keys ${key}\`" ;;
                *.) line="name=probe-of-keys ${key}k=\`" ;;
                *) fail "what is $key?" ;;
                esac
                if echo "$line" 2>/dev/null >$collection/new; then
                        rmdir $collection/probe-of-keys
                else
                        ! grep -q "has no '${key%[.=]}' to write" "$C/self/error" || fail "$collection: $key"
                fi
                checked=$((checked + 1))
        done
        mkdir $collection/of-spec || fail "mkdir $collection"
        for key in $(/usr/bin/python3 -c 'import json, sys
print(*[k for k in json.load(sys.stdin) if k != "kind"])' <$collection/of-spec/spec); do
                "$STRATO" complete new $collection x '' | grep -qx "$key[=.]" ||
                        fail "$collection: $key is not offered"
        done
        rmdir $collection/of-spec
done
[ $checked -gt 20 ] || fail "only $checked keys"
ok "$checked keys of new"
is "targets of a link" "$("$STRATO" complete new volumes x source=v)" source=volumes/v
is "what is no place offers nothing" "$("$STRATO" complete ctl nothing '')" ""

# --- through the shells themselves
bash_tab() {
        bash --norc -c '. "$1"; COMP_LINE=$2 COMP_POINT=${3:-${#2}}
                line=${COMP_LINE:0:COMP_POINT}; cur=${line##*[[:space:]=]}
                compopt() { :; }
                case $line in echo*) _strato_echo echo "$cur" ;; *) _strato strato "$cur" ;; esac
                printf "%s\n" "${COMPREPLY[@]}"' - "$SOURCE/contrib/completion/strato.bash" "$@"
}
is "bash: a verb" "$(bash_tab 'strato ap')" apply
is "bash: a key" "$(bash_tab 'strato new volumes x si')" "size="
is "bash: behind the =" "$(bash_tab 'strato new volumes x source=volumes/')" volumes/v
is "bash: echo to ctl" "$(bash_tab 'echo fl > volumes/v/ctl' 7)" flatten
is "bash: echo to new" "$(bash_tab 'echo si > volumes/new' 7)" "size="
is "bash: echo elsewhere" "$(bash_tab 'echo fl > volumes/v/size' 7)" ""
zsh -n "$SOURCE/contrib/completion/_strato" || fail "zsh: syntax"
zsh_tab() {
        zsh -f -c 'compadd() { while [[ $1 != -- ]]; do shift; done; shift; print -l -- $@ }
                _files() { print files }
                words=("${@:2}") CURRENT=$(($# - 1)); f() { . "$1" }; f "$1"' - \
                "$SOURCE/contrib/completion/_strato" "$@"
}
is "zsh: a verb" "$(zsh_tab strato ap)" apply
is "zsh: a key" "$(zsh_tab strato new volumes x si)" "size="
is "zsh: a file" "$(zsh_tab strato apply '')" files

# --- strato ctl and new
expect_status 0 strato new volumes made size=2M 'description=two words' metadata.k=v
expect_text "$T/out" "made "
is "its values" "$(cat volumes/made/description volumes/made/metadata/k)" $'two words\nv'
expect_status 2 strato ctl volumes/made nonsense
expect_text "$T/err" "'nonsense' is no verb of volumes"
expect_status 1 strato new volumes made size=2M
expect_status 2 strato new volumes other 'size 2M'
echo daily:7 >volumes/v/keep || fail "keep"
expect_status 0 strato ctl volumes/v expire

end_fs
