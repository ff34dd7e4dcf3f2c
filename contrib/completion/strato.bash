# bash completion for strato, and for `echo VERB > OBJECT/ctl` and `echo KEY=VALUE > COLLECTION/new`
# on the mount.  All candidates come from `strato complete`, which asks the mount.

_strato() {
        local cur=$2 word head=''
        # bash cuts words at = and :, strato does not.
        local line=${COMP_LINE:0:COMP_POINT} words
        read -r -a words <<<"$line"
        [[ $line == *[[:space:]] ]] && words+=('')
        word=${words[${#words[@]}-1]}
        [ "$word" = "$cur" ] || head=${word%"$cur"}
        local IFS=$'\n'
        COMPREPLY=($("${words[0]}" complete "${words[@]:1}" 2>/dev/null))
        COMPREPLY=("${COMPREPLY[@]#"$head"}")
        [[ ${COMPREPLY[0]-} == *[=.] ]] && compopt -o nospace
        return 0
}
complete -o default -F _strato strato

# The cursor is in front of `> .../ctl` or `> .../new`, which may be typed first.
_strato_echo() {
        local target cur=${2#[\'\"]}
        COMPREPLY=()
        [[ $COMP_LINE =~ \>[[:space:]]*([^[:space:]\>\<\;\&\|]*)/(ctl|new)([[:space:]]|$) ]] || return 0
        target=${BASH_REMATCH[1]/#\~/$HOME}
        local IFS=$'\n'
        if [ "${BASH_REMATCH[2]}" = ctl ]; then
                COMPREPLY=($(strato complete ctl "$target" "$cur" 2>/dev/null))
        else
                COMPREPLY=($(strato complete new "$target" NAME "$cur" 2>/dev/null))
                compopt -o nospace
        fi
        return 0
}
complete -o default -F _strato_echo echo
