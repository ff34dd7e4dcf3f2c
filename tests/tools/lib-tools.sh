# Tools on a real mount.  Each step is a row of a table in doc/tools.md, made of what happened; the
# test fails when the page says something else.  TOOLS_DOC=write writes the page's table anew.
#
#     begin FAMILY             the mount, volumes/v of 1 MiB (`description` is "old"), instances/web,
#                              a tenant's folder to stand in; $O is a folder elsewhere with `text`
#     works COMMAND [NOTE]     a line for bash; exits 0
#     says TEXT COMMAND [NOTE] ... and prints that
#     sets TEXT COMMAND [NOTE] ... after which volumes/v/description reads so; keys TEXT: the key k
#     refused ERRNO COMMAND [NOTE]  fails; the row has the words of $C/self/error
#     stopped TEXT COMMAND [NOTE]   fails before the mount is asked: by the kernel or the tool
#     finish                   compares the table, ends the mount
. "$(dirname "${BASH_SOURCE[0]}")/../fs/lib-fs.sh"
export C O=$T/elsewhere
page=$SOURCE/doc/tools.md

begin() {
        family=$1
        start_fs
        volume v 1M
        echo old >volumes/v/description
        mkdir "$O" instances/web && ln -s volumes/v instances/web/volumes/vda || fail "a guest"
        [ "$(cat volumes/v/.wait/in-use@20)" = in-use ] || fail "volumes/v is no disk of web"
        echo text >"$O/text"
        echo 'key=a' >volumes/v/metadata/k
        : >"$T/rows"
}

row() {
        local command=${1//|/\\|} outcome=$2 note=$3

        printf '| `%s` | %s | %s |\n' "${command//$'\n'/ ⏎ }" "$outcome" "$note" >>"$T/rows"
        ok "$1"
}

# Runs a line in a session of its own: a tool that asks the terminal has none.
run() {
        last=$(head -n 1 "$C/self/error")
        timeout 60 bash -c "$1" </dev/null >"$T/out" 2>"$T/err"
}

works() {
        run "$1" || fail "status $?: $1"
        row "$1" works "${2:-}"
}

says() {
        run "$2" || fail "status $?: $2"
        [ "$(cat "$T/out")" = "$1" ] || fail "does not say '$1': $2"
        row "$2" works "${3:-prints \`$1\`}"
}

# holds FILE TEXT COMMAND NOTE
holds() {
        run "$3" || fail "status $?: $3"
        [ "$(cat "$1")" = "$2" ] || fail "$1 is '$(cat "$1")', not '$2', after: $3"
        row "$3" works "$4"
}

sets() {
        holds volumes/v/description "$1" "$2" "${3:-}"
}

keys() {
        holds volumes/v/metadata/k "$1" "$2" "${3:-}"
}

refused() {
        local words
        ! run "$2" || fail "succeeded, not $1: $2"
        words=$(head -n 1 "$C/self/error")
        [ "$words" != "$last" ] || fail "no words about: $2"
        [[ "$words" == *" $1: "* ]] || fail "not $1 but $words: $2"
        row "$2" "$1" "*${words#*" $1: "}*${3:+; $3}"
}

stopped() {
        ! run "$2" || fail "succeeded: $2"
        grep -qF -- "$1" "$T/err" || fail "stderr has no '$1': $2"
        row "$2" "*$1*" "${3:-}"
}

# The part of the page between <!-- FAMILY --> and <!-- end -->.
finish() {
        local part="<!-- $family -->"
        if [ "${TOOLS_DOC:-}" = write ]; then
                awk -v part="$part" -v rows="$T/rows" '
                        $0 == part { print; print "| what | outcome | words |"; print "|---|---|---|"
                                while ((getline line <rows) > 0) print line; skip = 1 }
                        $0 == "<!-- end -->" { skip = 0 }
                        !skip' "$page" >"$T/page" && cp "$T/page" "$page"
        fi
        awk -v part="$part" '$0 == part { on = 1; next } $0 == "<!-- end -->" { on = 0 } on' "$page" |
                tail -n +3 >"$T/documented"
        diff -u "$T/documented" "$T/rows" >"$T/out" || fail "doc/tools.md says something else"
        ok "doc/tools.md is what happens"
        end_fs
}
