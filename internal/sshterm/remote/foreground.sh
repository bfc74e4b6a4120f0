# foreground.sh: who has the terminal of a shell? POSIX sh, behind identity.sh. Set
# above: pid, boot and start of the session's own shell, as for identity.sh; asked, the
# pid of the shell that is meant: the same, or one that was started in it.
#
# survey answers with a line
#   process PID PARENT GROUP TTY FOREGROUND STATE START
# for each process of the session and of the foreground of the asked one's terminal,
# "detail PID USER INPUT COMMAND" for those in the foreground of their terminal, INPUT
# being what standard input is (tty, raw: a tty whose lines nobody edits, other, -: not
# to be seen); and last "surveyed HOW".

# place_of PID sets parent, pgrp and front, the foreground group of its terminal.
place_of() {
  parent= pgrp= front=
  case $how in
  proc | own)
    IFS= read -r stat <"$proc/$1/stat" || return
    set -- ${stat##*")"}
    parent=$2 pgrp=$3 front=$6
    ;;
  ps)
    set -- $(ps -o ppid= -o pgid= -o tpgid= -p "$1")
    parent=$1 pgrp=$2 front=$3
    ;;
  esac
} 2>/dev/null

# ours: is the asked one the session's shell, or did it come of it?
ours() {
  one=$asked turns=0
  while [ "${one:-0}" -gt 1 ] && [ $turns -lt 200 ]; do
    [ "$one" != "$pid" ] || return 0
    place_of "$one"
    one=$parent turns=$((turns + 1))
  done
  false
}

# begin ends the script where there is no such shell.
begin() {
  identify
  [ "$how" != none ] || { say surveyed none; exit 0; }
  [ -n "$started" ] && [ "$state" != Z ] && ours || { say gone; exit 0; }
  place_of "$asked"
}

survey() {
  begin
  if [ "$how" = ps ]; then
    LC_ALL=C ps -A -o pid= -o ppid= -o pgid= -o tty= -o tpgid= -o stat= -o lstart=
  else
    LC_ALL=C grep '' "$proc"/[0-9]*/stat /dev/null
  fi | LC_ALL=C awk -v how="$how" -v root="$pid" -v front="${front:-0}" '
    {
      if (how == "ps") {
        if (NF < 7) next
        id = $1; up = $2; grp = $3; tty = $4; fg = $5; state = substr($6, 1, 1)
        born = $7; for (i = 8; i <= NF; i++) born = born "_" $i
      } else {
        id = $0; sub(/\/stat:.*/, "", id); sub(/^.*\//, "", id)
        rest = $0; sub(/^.*\) /, "", rest)
        if (split(rest, f, " ") < 20) next
        state = f[1]; up = f[2]; grp = f[3]; tty = f[5]; fg = f[6]; born = f[20]
      }
      if (state == "Z" || state == "X") next
      order[++count] = id; parent[id] = up
      line[id] = id " " up " " grp " " tty " " fg " " state " " born
      if (id == root || (front > 1 && grp == front)) keep[id] = 1
    }
    END {
      do {
        more = 0
        for (i = 1; i <= count; i++) if (!(order[i] in keep) && (parent[order[i]] in keep)) { keep[order[i]] = 1; more = 1 }
      } while (more)
      for (i = 1; i <= count; i++) if (order[i] in keep) print line[order[i]]
    }' | {
    shown=0
    while read -r one up grp tty fg rest; do
      say process "$one" "$up" "$grp" "$tty" "$fg" "$rest"
      [ "$grp" = "$fg" ] && [ $shown -lt 40 ] || continue
      shown=$((shown + 1))
      detail "$one"
    done
  }
  say surveyed "$how"
} 2>/dev/null </dev/null

detail() {
  case $how in
  ps)
    set -f
    set -- "$1" $(ps -o user= -o args= -p "$1" | LC_ALL=C tr -c '[ -~]' ' ' | cut -c 1-300)
    set +f
    one=$1 user=${2:--} input=-
    [ $# -lt 2 ] || shift 2
    say detail "$one" "$user" "$input" "${*:--}"
    ;;
  *)
    what=$(tr '\000' ' ' <"$proc/$1/cmdline" | LC_ALL=C tr -c '[ -~]' '?' | cut -c 1-256)
    input=-
    if [ -c "$proc/$1/fd/0" ]; then
      input=other
      modes=$(stty -a <"$proc/$1/fd/0") && case $modes in *-icanon*) input=raw ;; *) input=tty ;; esac
    elif [ -e "$proc/$1/fd/0" ]; then
      input=other
    fi
    one=$1
    set -- $(ls -ld "$proc/$1")
    say detail "$one" "${3:--}" "$input" "${what:--}"
    ;;
  esac
}

# climb_front ends what has the terminal, with the ladder; it stands behind ladder.sh.
climb_front() {
  begin
  session=0 group=${front:-0} spare=$asked id= turns=0
  [ "$group" -gt 1 ] || group=0
  # A shell without job control has the group of whoever runs it, and is ended with that.
  while [ "$pgrp" = "$group" ] && [ "${parent:-0}" -gt 1 ] && [ $turns -lt 200 ]; do
    spare="$spare $parent" turns=$((turns + 1))
    place_of "$parent"
  done
  climb
  tell_left
}

# signal_front sends $signal to what has the terminal.
signal_front() {
  begin
  if [ "${front:-0}" -le 1 ] || [ "$front" = "$pgrp" ]; then
    say idle
  elif to_group "$signal" "$front" || { sudo_allowed && as_root kill -s "$signal" -- "-$front"; }; then
    say sent
  else
    say refused
  fi
} 2>/dev/null </dev/null
