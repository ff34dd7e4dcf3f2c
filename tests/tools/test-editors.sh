#!/bin/bash
# Editors, on a terminal of their own where they want one.
. "$(dirname "$0")/lib-tools.sh"
requires sed perl vim nano emacs
begin editors
type=$SOURCE/tests/tools/type.py
export HOME=$O
export type
on_screen() {
        local shown=$1
        shift
        "$type" "$@" >"$T/out" 2>"$T/err" || fail "status $?: $shown"
        row "$shown" works "$note"
}
left() {
        [ -z "$(ls -A volumes/v | grep -E '~|#|^sed|^tmp|^XX|sw[a-p]$')" ] || fail "$1 leaves a file"
}
vim_sets() {
        sets "$@"
}
plain='vim -e -s -N -u NONE'

sets new "sed -i s/old/new/ volumes/v/description"
stopped "couldn't edit volumes/v" "sed -i s/x/y/ volumes/v" "a directory"
refused EINVAL "sed -i s/.*/99Z/ volumes/v/size" "status 4"
refused EPERM "sed -i.bak s/new/x/ volumes/v/description" "no backups: sed would rename the file"
is "the value stays" "$(cat volumes/v/description)" new
keys key=b "sed -i s/a/b/ volumes/v/metadata/k"
keys key=c "sed -i.bak s/b/c/ volumes/v/metadata/k" "the backup is a key"
is "the backup" "$(cat volumes/v/metadata/k.bak)" key=b
sets perl "perl -i -pe s/new/perl/ volumes/v/description"
vim_sets vim "$plain -c %s/perl/vim/ -c wq volumes/v/description"
vim_sets vim2 "$plain -c 'set backup backupcopy=no' -c s/vim/vim2/ -c wq volumes/v/description"
vim_sets vim3 "$plain -c 'set backup backupcopy=yes fsync' -c s/vim2/vim3/ -c wq volumes/v/description"
refused EINVAL "$plain -c s/.*/many/ -c wq volumes/v/size" "status 1, the text stays in the editor"
refused EACCES "$plain -c s/.*/x/ -c wq! volumes/v/state"
keys key=d "$plain -c s/c/d/ -c wq volumes/v/metadata/k"
works "$plain -c '%s/vim3/by spec/' -c wq volumes/v/spec" "applied as a whole"
is "applied" "$(cat volumes/v/description)" "by spec"
left vim
note="typed over, \`:wq\`"
on_screen 'vim volumes/v/description' 'vim -N -u NONE volumes/v/description' \
        'by spec' 'ccon screen\x1b:wq\r'
is "vim on a terminal" "$(cat volumes/v/description)" "on screen"
note="\`^K\`, typed anew, \`^O\`, \`^X\`"
for nano in nano 'nano -B'; do
        on_screen "$nano volumes/v/description" "$nano -I volumes/v/description" \
                'Read' "\\x0b\\x0bby $nano\\x0f" 'Write' '\r' 'Wrote' '\x18'
        is "$nano" "$(cat volumes/v/description)" "by $nano"
done
note="\`^A ^K\`, typed anew, \`^X^S\`, \`^X^C\`"
for emacs in 'emacs -nw'; do
        on_screen "$emacs volumes/v/description" "$emacs -Q volumes/v/description" \
                'by nano' '\x01\x0bby emacs\x18\x13' 'Wrote' '\x18\x03'
        is "emacs" "$(cat volumes/v/description)" "by emacs"
        on_screen "$emacs volumes/v/metadata/k" "$emacs -Q volumes/v/metadata/k" \
                'key=d' '\x01\x0bby emacs\x18\x13' 'Wrote' '\x18\x03'
        is "emacs, a key" "$(cat volumes/v/metadata/k)" "by emacs"
done
save='(progn (goto-char 1) (insert "in the middle of ") (save-buffer))'
sets "in the middle of by emacs" "emacs -Q --batch volumes/v/description --eval '$save'" \
        "written in two pieces, taken as one line"
echo 1M >volumes/v/size
save='(progn (goto-char 1) (delete-char 1) (insert "9") (save-buffer))'
refused EINVAL "emacs -Q --batch volumes/v/size --eval '$save'" \
        "the first piece, \`9\`, is no size: set \`file-precious-flag\`"
works "emacs -Q --batch volumes/v/size --eval '(setq file-precious-flag t)' --eval '$save'" \
        "a temporary file, one write"
is "the size" "$(cat volumes/v/size)" 9048576
left emacs
is "no failure of a lock or a temporary file is recorded" \
        "$(grep -cE 'symlink|create' "$C/self/errors")" 0
finish
