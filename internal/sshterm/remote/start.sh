# start.sh: becomes the shell. POSIX sh, a file in the directory of the session. The
# service puts in front: nonce, dir, kept, patience (seconds); and behind, the environment and the
# shell.

stat=
{ IFS= read -r stat </proc/$$/stat; } 2>/dev/null
# The name in parentheses may itself hold a parenthesis: cut at the last one.
# Then $1 is field 3 of proc(5): state, $3 group, $4 session, ${20} start time.
set -- ${stat##*")"}
group=$3 session=$4 start=${20}
[ -n "$start" ] || {
  set -- $(LC_ALL=C ps -o pgid= -o lstart= -p $$ 2>/dev/null)
  group=${1:-0} session=0
  [ $# -eq 0 ] || shift
  start=$*
}
boot=
{ IFS= read -r boot </proc/sys/kernel/random/boot_id; } 2>/dev/null
who="$$ $group $session ${boot:--} ${start:--}"
if [ "$kept" = yes ]; then
  # Nothing is printed before somebody is there to see it. What lets it go on is typed.
  # Where nobody comes for it, it ends: each read takes at most a second. BusyBox waits
  # for a key whatever the terminal is told; dash knows no -t.
  limit=
  (IFS= read -t 1 -r go) </dev/null 2>/dev/null
  [ $? -ne 1 ] || limit="-t 1"
  modes=$(stty -g)
  stty -echo -icanon min 0 time 10
  (umask 077 && printf '%s\n' "$who" >"$dir/state_" && mv "$dir/state_" "$dir/state")
  until IFS= read $limit -r go; do
    patience=$((patience - 1))
    [ $patience -gt 0 ] || exit 1
  done
  stty "$modes"
else
  [ -t 0 ] || { printf '\036telexec:%s: refused pty\n' "$nonce"; exit 1; }
  (umask 077 && printf '%s\n' "$who" >"$dir/state")
  printf '\036telexec:%s: started %s\n' "$nonce" "$who"
fi
unset TMUX TMUX_PANE TERM_PROGRAM TERM_PROGRAM_VERSION STY WINDOW SCREENDIR SCREENRC TERMCAP
cd 2>/dev/null || cd /
unset OLDPWD stat group session start boot who go kept nonce patience modes limit
TELEXEC_ID=${dir##*/}
export TELEXEC_ID
# The terminal speaks UTF-8. To programs of an account that says nothing of a locale it
# would be ASCII: zsh makes "?" of what is typed. The account's own files come later.
[ -n "$LC_ALL$LC_CTYPE$LANG" ] || case $(locale -a 2>/dev/null) in *C.[Uu][Tt][Ff]*8*) LANG=C.UTF-8; export LANG ;; esac
