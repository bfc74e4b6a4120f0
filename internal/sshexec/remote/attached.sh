# attached.sh: becomes the command of an attached run. POSIX sh.
#
# It is sent as ONE LINE inside the exec request: comments go, line ends become
# spaces. So every line ends in ";", "{", "||" or "&&". It holds no single
# quote, backslash or "!" and is therefore one plain word for every login shell.
# Nothing here forks where there is a /proc: reading, testing and echo are built
# in, and the last line is an exec, so that the pid told is the command's own
# and sshd reports the command's own exit code or signal.
#
# The service puts its values at the line of the at sign, as assignments in
# double quotes: telexec_line, telexec_dir, telexec_nonce, telexec_mode,
# telexec_login, telexec_reader, telexec_short, and the exports.

# The user's own name for a shell, before the environment asked for can hide it.
telexec_shell=${SHELL:-/bin/sh};
# dash and its kin are the shells that have none of these.
telexec_version="$RANDOM$BASH_VERSION$KSH_VERSION$SH_VERSION$ZSH_VERSION$YASH_VERSION$POSH_VERSION";
telexec_stat=;
{ IFS= read -r telexec_stat </proc/$$/stat; } 2>/dev/null;
# The name in parentheses may itself hold a parenthesis: cut at the last one.
# Then $1 is field 3 of proc(5): state, $3 group, $4 session, ${20} start time.
set -- ${telexec_stat##*")"};
telexec_start=${20};
# Without /proc the start time is what ps says, in words.
[ -n "$telexec_start" ] || {
set -- $(LC_ALL=C ps -o pgid= -o lstart= -p $$ 2>/dev/null);
telexec_pgid=$1;
[ $# -eq 0 ] || shift;
telexec_start="$*";
set -- - - ${telexec_pgid:-0} 0;
};
telexec_boot=;
{ IFS= read -r telexec_boot </proc/sys/kernel/random/boot_id; } 2>/dev/null;
# A login shell that reads no login files for -c, and is a sh, could have taken
# this script itself: the next run on this host then saves one exec.
telexec_kind=other;
case ${telexec_shell##*/} in sh|dash|ash|ksh|ksh93|mksh) telexec_kind=sh;; esac;
telexec_head="$$ $3 $4 $telexec_kind ${telexec_boot:--} ${telexec_start:--}";
# A line end that needs no quoting: the third character of IFS, which no shell
# takes from its environment. Only the first of the rest, since zsh has a NUL
# there as well. The values below say $1 for a line end.
set -- "${IFS#??}";
set -- "${1%"${1#?}"}";
@
# A PTY that the server refused: say so, on standard output, where the service
# listens when it has asked for one.
[ "$telexec_mode" = plain ] || [ -t 0 ] || {
echo "telexec:$telexec_nonce: refused pty";
exit 1;
};
[ -z "$telexec_dir" ] || cd "$telexec_dir" 2>/dev/null || {
telexec_head=missing;
[ -d "$telexec_dir" ] && telexec_head=denied;
echo "telexec:$telexec_nonce: refused directory $telexec_head" >&2;
exit 1;
};
# Who cannot be told must not start: after the service has let go of the
# channel this write fails, or ends the shell with SIGPIPE.
echo "telexec:$telexec_nonce: started $telexec_head" >&2 || exit 1;
