# ladder.sh: ends a command and all its processes, and proves it by a list.
# Behind identity.sh; set above besides: grace_int, grace_term in hundredths of
# a second (0: leave that rung out), and, where they are not what they are below,
# soft and spare.
#
# The answer: "open" where something that cannot be seen has the output of a
# durable run open; "left PID USER WHY COMMAND" for each process that could not be
# ended; then "done SIGNAL ENDED LEFT HOW", where SIGNAL is the strongest that
# was needed (none, INT or HUP, TERM, KILL) and HOW is what the list was made from.

nl='
'
seen=
alive=
open=
spools= # of a durable run: what the names of its files begin with
: "${soft:=INT}" # the signal of the first rung
: "${spare:=0}"  # processes that are never touched, nor are their descendants for their sake

# list sets alive: "pid:start" of every member of the session or group, of every
# carrier of the marker, of everything seen before, and of every descendant of
# those. Zombies do not count. Everything seen is kept as pid:start, so that a
# child is not lost when its parent dies, and a recycled pid is not mistaken.
list() {
  if [ "$how" = none ]; then
    alive=
    # Blind: all that can be asked is whether the group still is.
    [ "$group" -gt 1 ] && to_group 0 "$group" && alive="-$group:-"
    case " $seen " in *" ${alive:--} "*) ;; *) seen="$seen $alive" ;; esac
    return
  fi
  # All goes to awk on its input: as arguments, a large tree would not fit.
  found=$({
    printf 'seen %s\n' $seen
    [ "$how" = ps ] || [ -z "$id" ] || $marks grep -lF "TELEXEC_ID=$id" "$proc"/[0-9]*/environ || [ $? -lt 126 ] || exit
    echo processes
    if [ "$how" = ps ]; then
      LC_ALL=C ps -A -o pid= -o ppid= -o pgid= -o stat= -o lstart=
    else
      # With the file in front of each line: a process may have line ends in its name.
      LC_ALL=C grep '' "$proc"/[0-9]*/stat /dev/null
    fi
  } | LC_ALL=C awk -v how="$how" -v session="$session" -v group="$group" -v spare="$spare" -v self="$$" '
    BEGIN { n = split(spare, part, " "); for (i = 1; i <= n; i++) spared[part[i]] = 1 }
    $1 == "processes" && !all { all = 1; next }
    !all && $1 == "seen" { if ($2 != "" && !($2 in known)) { known[$2] = 1; old[++olds] = $2 }; next }
    !all { n = split($1, part, "/"); marked[part[n-1]] = 1; next }
    {
      lines++ # at least ours
      pid = $1
      if (how == "ps") {
        state = substr($4, 1, 1); up = $2; grp = $3; sess = 0
        born = $5; for (i = 6; i <= NF; i++) born = born "_" $i
      } else {
        # The name may hold blanks and parentheses: cut at the last one.
        pid = $0; sub(/\/stat:.*/, "", pid); sub(/^.*\//, "", pid)
        rest = $0; sub(/^.*\) /, "", rest)
        if (split(rest, f, " ") < 20) next
        state = f[1]; up = f[2]; grp = f[3]; sess = f[4]; born = f[20]
      }
      if (state == "Z" || state == "X" || pid + 0 <= 1 || pid == self || pid in spared) next
      order[++count] = pid; parent[pid] = up; token[pid] = pid ":" born
      if ((session > 1 && sess == session) || (group > 1 && grp == group) || pid in marked || token[pid] in known) keep[pid] = 1
    }
    END {
      do {
        more = 0
        for (i = 1; i <= count; i++) {
          pid = order[i]
          if (!(pid in keep) && (parent[pid] in keep)) { keep[pid] = 1; more = 1 }
        }
      } while (more)
      for (i = 1; i <= count; i++) if (order[i] in keep) {
        printf "%s ", token[order[i]]
        if (!(token[order[i]] in known)) old[++olds] = token[order[i]]
      }
      printf "\n"
      for (i = 1; i <= olds; i++) printf "%s ", old[i]
      if (lines) print "\nlisted"
    }')
  case $found in
  *"$nl"listed) found=${found%"$nl"listed} ;;
  *) # What was not listed to its end, for want of awk or of processes, proves nothing.
    how=none
    list
    return
    ;;
  esac
  alive=${found%%"$nl"*}
  alive=${alive% }
  seen=${found#*"$nl"}
} 2>/dev/null

# to_all SIGNAL sends it to every process of the list; those of other users only
# sudo can reach, where it asks for no password.
to_all() {
  others=
  for entry in $alive; do
    case $entry in
    -*) to_group "$1" "$group" ;;
    *) kill -s "$1" "${entry%%:*}" || others="$others ${entry%%:*}" ;;
    esac
  done
  [ -n "$others" ] && sudo_allowed && as_root kill -s "$1" $others
} 2>/dev/null

# clock sets now, in hundredths of a second; where the kernel does not tell, by
# counting the pauses.
ticks=100
clock() {
  now=
  IFS=' .' read -r whole part rest <"$proc/uptime"
  now=$whole$part
  [ -n "$now" ] || now=$ticks
} 2>/dev/null

# pause rests a moment, longer the longer it takes.
rests=0
pause() {
  rests=$((rests + 1))
  if [ $rests -le 8 ]; then
    ticks=$((ticks + 2)); sleep 0.01
  elif [ $rests -le 60 ]; then
    ticks=$((ticks + 4)); sleep 0.03
  else
    ticks=$((ticks + 11)); sleep 0.1
  fi || { ticks=$((ticks + 100)); sleep 1; } # a sleep that knows only seconds
} 2>/dev/null

# gone_within TIME waits for the list to be empty.
gone_within() {
  clock
  until=$((now + $1)) rests=0
  while list; [ -n "$alive" ]; do
    clock
    [ "$now" -ge "$until" ] && return 1
    pause
  done
}

# freeze stops all until the list no longer grows: what is stopped cannot fork,
# so a tree that respawns faster than it is killed stands still first.
freeze() {
  looks=0 before=-
  while list; [ "$alive" != "$before" ] && [ $looks -lt 10 ]; do
    to_all STOP
    before=$alive looks=$((looks + 1))
  done
}

climb() {
  list
  used=none
  [ -n "$alive" ] || return
  if [ "$grace_int" -gt 0 ]; then
    used=$soft
    # CONT behind it: a stopped process takes its signals only when it goes on.
    if [ "$group" -gt 1 ]; then
      { to_group "$soft" "$group" && to_group CONT "$group"; } || { to_all "$soft"; to_all CONT; }
    else
      to_all "$soft"
      to_all CONT
    fi
    gone_within "$grace_int" && return
  fi
  if [ "$grace_term" -gt 0 ]; then
    used=TERM
    to_all TERM
    to_all CONT
    gone_within "$grace_term" && return
  fi
  used=KILL round=0 rests=0
  while [ $round -lt 20 ]; do
    freeze
    [ -n "$alive" ] || return
    to_all KILL
    round=$((round + 1))
    [ $round -gt 2 ] && pause
  done
  list
}

# still_open: does the run wait for the end of its output?
still_open() {
  [ ! -e "$spools.z" ] && read -r what rest <"$spools.st" || return
  case $what in run | exit | signal) ;; *) false ;; esac
} 2>/dev/null

# look_at_pipes sets copiers, which take the output to its spools, and holders,
# "pid:start" of all that have a pipe open for writing that one of those reads. No
# list is read for that, in which a name could say what it likes: anybody may bear
# the run's id, and only ours are copiers.
look_at_pipes() {
  copiers= shells= holders=
  for one in $(LC_ALL=C grep -lF "TELEXEC_RUN=$id" "$proc"/[0-9]*/environ); do
    one=${one%/environ}
    [ -O "$one" ] && [ -p "$one/fd/0" ] || continue
    one=${one##*/} copiers="$copiers ${one##*/}"
    # The shells above it have pipes open as well.
    while [ "$one" -gt 1 ] && IFS= read -r stat <"$proc/$one/stat"; do
      set -- ${stat##*")"}
      one=$2 shells="$shells $2"
    done
  done
  [ -n "$copiers" ] || return 0
  for fd in "$proc"/[0-9]*/fd/[0-9]*; do
    [ -p "$fd" ] || continue
    holder=${fd#"$proc/"} holder=${holder%%/*}
    case " $copiers $shells $$ " in *" $holder "*) continue ;; esac
    for one in $copiers; do
      [ "$fd" -ef "$proc/$one/fd/0" ] && written "$fd" || continue
      start_of "$holder"
      [ -z "$started" ] || case " $holders " in *" $holder:$started "*) ;; *) holders="$holders $holder:$started" ;; esac
    done
  done
} 2>/dev/null

# written PROC/PID/fd/N: is it open for writing?
written() {
  while read -r word flags && [ "$word" != flags: ]; do :; done <"${1%/fd/*}/fdinfo/${1##*/}"
  case $flags in *[1-3]) ;; *) false ;; esac
}

# reach_holders is for what has left everything by which the list knows it, and has
# only the output still open. What cannot be seen, or not be ended, is not waited
# for any more.
reach_holders() {
  open=
  case $how in proc | own) ;; *) return ;; esac
  await_close || return 0
  look_at_pipes
  if [ -n "$holders" ]; then
    seen="$seen$holders"
    last=$used
    climb
    [ "$used" != none ] || used=$last
    await_close || return 0
  fi
  [ -n "$alive" ] || open=yes
  true >"$spools.x"
  look_at_pipes
  [ -z "$copiers" ] || kill -s KILL $copiers
} 2>/dev/null

# await_close gives it a moment; false where it is closed.
await_close() {
  rests=0
  while still_open; do
    [ $rests -lt 12 ] || return 0
    pause
  done
  false
}

# describe PID:START tells who it is and why it is still there.
describe() {
  p=${1%%:*} user=- why=survived what=
  p=${p#-}
  case $how in
  proc | own)
    # ls is the one tool that gives the name of an owner everywhere.
    set -- $(ls -ld "$proc/$p")
    user=${3:--}
    what=$(tr '\000' ' ' <"$proc/$p/cmdline" | LC_ALL=C tr -c '[ -~]' '?' | cut -c 1-256)
    stat=
    IFS= read -r stat <"$proc/$p/stat"
    [ -n "$what" ] || { what=${stat#*"("}; what="[${what%")"*}]"; }
    set -- ${stat##*")"}
    [ "$1" = D ] && why=uninterruptible
    ;;
  ps)
    set -f # an argument of a process is not a pattern of ours
    set -- $(ps -o user= -o args= -p "$p" | LC_ALL=C tr -c '[ -~]' ' ' | cut -c 1-300)
    user=${1:--}
    [ $# -eq 0 ] || shift
    what=$*
    ;;
  esac
  [ $why = survived ] && ! kill -s 0 "$p" && why=forbidden
  say left "$p" "$user" "$why" "${what:--}"
} 2>/dev/null

# tell_left tells what climb has come to: who is left, and how many were ended.
tell_left() {
  left=0
  for entry in $alive; do
    left=$((left + 1))
    [ $left -le 50 ] && describe "$entry"
  done
  ended=$((-left))
  for entry in $seen; do ended=$((ended + 1)); done
  [ $ended -ge 0 ] || ended=0
  say "done" $used $ended $left $how
}

# end_all is called at the end.
end_all() {
  exec </dev/null
  told=$pid
  identify
  # ps shows no environment: without a pid there is nothing to find it by.
  [ "$told" -gt 1 ] || [ $how != ps ] || how=none
  # The environment of what sudo runs is not for the login user to read.
  marks=
  [ "$through" != yes ] || [ "$(id -u)" = 0 ] || [ $how != proc ] || if sudo_allowed; then marks=as_root; else how=own; fi
  climb
  [ -z "${spools:=$run}" ] || [ -n "$alive" ] || reach_holders
  [ -z "$open" ] || say open
  tell_left
}
