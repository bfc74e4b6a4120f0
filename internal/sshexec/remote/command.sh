# command.sh: the command file of a durable run: tells who it is, and becomes the
# command. In front stand telexec_id, telexec_dir and telexec_sudo; telexec_home,
# telexec_umask and telexec_boot come from start.sh by the environment. Behind it stand what the
# command is to have in its environment, and either become.sh with its values, or
# sudo. All of it stands in braces, so that the shell has read it to its end before
# the file is emptied.

# Behind this line, descriptor 2 has what the waiting shell says of our end.
echo telexec >&2
exec 2>&5 5>&-
# The user's own name for a shell, before the environment asked for can hide it.
telexec_shell=${SHELL:-/bin/sh}
telexec_version="$RANDOM$BASH_VERSION$KSH_VERSION$SH_VERSION$ZSH_VERSION$YASH_VERSION$POSH_VERSION"
# Let go, once: whoever made this file first has started the command, or has seen
# to it that nobody does.
[ -e "$telexec_id.st" ] || exit 1
set -C
{ true >"$telexec_id.go"; } 2>/dev/null || exit 1
set +C
exec 6<>"$telexec_id.st" || exit 1
true >"$telexec_id.c"
telexec_stat=
{ IFS= read -r telexec_stat </proc/$$/stat; } 2>/dev/null
# The name in parentheses may itself hold a parenthesis: cut at the last one.
# Then $1 is field 3 of proc(5): state, $3 group, $4 session, ${20} start time.
set -- ${telexec_stat##*")"}
telexec_start=${20}
[ -n "$telexec_start" ] || {
  set -- $(LC_ALL=C ps -o pgid= -o lstart= -p $$ 2>/dev/null)
  telexec_pgid=$1
  [ $# -eq 0 ] || shift
  for telexec_stat; do telexec_start=${telexec_start:+${telexec_start}_}$telexec_stat; done
  set -- - - ${telexec_pgid:-0} 0
}
telexec_rest="$telexec_boot $$ $3 $4 ${telexec_start:--}"
telexec_word=run
umask $telexec_umask
cd "$telexec_home" 2>/dev/null || cd /
unset telexec_home telexec_umask TELEXEC_RUN OLDPWD
[ -z "$telexec_dir" ] || [ -n "$telexec_sudo" ] || cd "$telexec_dir" 2>/dev/null || {
  telexec_rest="$telexec_boot directory missing"
  [ -d "$telexec_dir" ] && telexec_rest="$telexec_boot directory denied"
  telexec_word=unstarted
}
printf '%-120s%s\n' "$telexec_word $telexec_rest" "$telexec_word" >&6 || exit 1
exec 6>&-
unset telexec_boot
[ "$telexec_word" != unstarted ] || exit 1
set --
