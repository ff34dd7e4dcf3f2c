#!/bin/bash
# What every shell does to a file: redirections, here-documents, printf, tee.
. "$(dirname "$0")/lib-tools.sh"
requires bash dash zsh busybox
begin shells

declare -A exists=([bash]='cannot overwrite existing file' [dash]='File exists'
        [zsh]='file exists' ['busybox sh']='File exists')
for sh in bash dash zsh 'busybox sh'; do
        sets one "$sh -c 'echo one >volumes/v/description'"
        sets two "$sh -c 'echo two >>volumes/v/description'" "\`>>\` is \`>\`: one value"
        sets two "$sh -c ': >volumes/v/description'" "nothing written, nothing changed"
        sets three "$sh -c 'printf three >volumes/v/description'" "the newline may be missing"
        sets four "$sh -c 'cat <<END >volumes/v/description
four
END'"
        refused EINVAL "$sh -c 'echo 1Z >volumes/v/size'" "the shell's status is not 0"
        stopped "${exists[$sh]}" "$sh -c 'set -C; echo six >volumes/v/description'" \
                "noclobber: every attribute exists; \`>\|\` writes"
        sets six "$sh -c 'set -C; echo six >|volumes/v/description'"
done
refused EINVAL "printf 'one\ntwo\n' >volumes/v/description" "the first line is set"
is "the first line is set" "$(cat volumes/v/description)" one
sets two "printf 'one\ntwo\n' | tail -n 1 >volumes/v/description"
refused EINVAL "printf 'one\ntwo\n' | cat >volumes/v/description" "one write: none is set"
works "printf 'name=a\nname=b size=1M\n' >volumes/new" "a line is a request"
[ -d volumes/a ] && [ -d volumes/b ] || fail "two volumes"
says "c" "exec 3<>volumes/new; echo name=c >&3; read -r name id <&3; echo \$name"
sets teed "echo teed | tee volumes/v/description >\$O/copy"
keys $'key=a\nkey=b' "echo key=b | tee -a volumes/v/metadata/k" "a metadata key is a small file"
keys $'key=a\nkey=b\n1\n2' "exec 3>>volumes/v/metadata/k; echo 1 >>volumes/v/metadata/k; echo 2 >&3" \
        "two that append lose nothing"
refused EINVAL "echo 0 | tee volumes/v/size" "tee says so, and its status"
sets old "busybox cp \$O/text volumes/v/description; busybox echo old >volumes/v/description"
says old "busybox cat volumes/v/description"
requires /usr/lib/cargo/bin/coreutils/cat
says old "/usr/lib/cargo/bin/coreutils/cat volumes/v/description" "the cat of uutils"
works "for f in volumes/v/*; do [ -f \"\$f\" ] && read -r line <\"\$f\"; done; true" "a glob, every file read"
says in-use "read -r state <volumes/v/state; echo \$state"
says in-use "echo \$(<volumes/v/state)"
says "volumes/v" "compgen -f volumes/v" "what Tab completes"
refused ENOENT "echo x >volumes/v/sise"
refused EACCES "echo x >volumes/v/state"
refused ETIMEDOUT "cat volumes/v/.wait/error@1"
finish
