# attach.sh: starts a keeper with the shell in it, or finds it, and is its client until
# one of them ends. POSIX sh, a file in the directory of the session, or, where that
# cannot be written any more, in one of its own, which goes at once. Set in front: nonce,
# dir, keeper, mode (new, resume), columns, rows, own (empty, or that directory),
# patience: hundredths of a second that the keeper may take to start.
#
# What it says itself are lines that begin with RS and have the nonce: first "started",
# or why not ("failed WHY": it may be tried again), and last what has become of the
# shell: "exit CODE", "gone", or "away" where it goes on without us.

say() { printf '\036telexec:%s: %s\n' "$nonce" "$*"; }

# start_of PID sets started; empty for no such process.
start_of() {
  started=
  if IFS= read -r stat <"/proc/$1/stat"; then
    set -- ${stat##*")"}
    case $1 in Z | X) ;; *) started=${20} ;; esac
  elif [ ! -r /proc/self/stat ]; then
    set -- $(LC_ALL=C ps -o lstart= -p "$1")
    started=$*
  fi
} 2>/dev/null

# judge sets verdict: lives, exit CODE, gone, rebooted.
judge() {
  verdict=gone who=
  { IFS= read -r who <"$dir/state"; } 2>/dev/null || return
  set -- $who
  pid=$1 boot=$4
  shift 4
  now=
  { IFS= read -r now </proc/sys/kernel/random/boot_id; } 2>/dev/null
  if [ -n "$now" ] && [ "$boot" != - ] && [ "$now" != "$boot" ]; then
    verdict=rebooted
    return
  fi
  # A shell that has just ended is written down in a moment.
  tries=0
  while :; do
    start_of "$pid"
    [ -z "$started" ] || [ "$started" != "$*" ] || { verdict=lives; return; }
    { read -r code <"$dir/exit"; } 2>/dev/null && { verdict="exit $code"; return; }
    tries=$((tries + 1))
    [ $tries -lt 25 ] || return
    sleep 0.02 2>/dev/null || sleep 1
  done
}

# From within the directory, for the path of a socket has at most a hundred bytes.
tmux() { command tmux -u -S tmux -f tmux.conf "$@"; }

create() {
  # What it keeps bears the mark of the session, but not we, who are there until it ends.
  export TELEXEC_ID="${dir##*/}"
  case $keeper in
  TMUX) tmux new-session -d -s telexec -x "$columns" -y "$rows" /bin/sh "$dir/hold" ;;
  DTACH) dtach -n "$dir/dtach" -E -z -r winch /bin/sh "$dir/hold" ;;
  # Short names: the path of a socket has 107 bytes at most.
  SCREEN) (umask 077 && mkdir "$dir/s") && screen -c "$dir/screenrc" -U -dmS t /bin/sh "$dir/hold" ;;
  esac </dev/null 2>&1 >/dev/null
}

# rest rests a moment, and counts in spent; false where the patience is at its end.
rest() {
  if sleep 0.02 2>/dev/null; then spent=$((spent + 2)); else sleep 1; spent=$((spent + 100)); fi
  [ $spent -lt "$patience" ]
}

# launch has the keeper start the shell, and sets failure where it does not in time: it may
# hang, or talk without end. What is left of it then bears the mark.
launch() {
  spent=0
  rm -rf state exit client created s
  # The keeper is not what is in the background: what is there ignores INT.
  (
    while rest; do
      [ ! -s created ] || exit
    done
    say failed "it runs nothing"
  ) &
  failure=$({ create; echo $? >created; } 2>/dev/null | { dd bs=300 count=1 2>/dev/null; cat >/dev/null; })
  created=
  read -r created <created 2>/dev/null
  if [ "$created" != 0 ]; then
    failure=${failure:-it has ended with $created}
    return
  fi
  failure=
  until [ -s state ]; do
    rest || { failure="it runs nothing"; return; }
  done
}

# keeps: is the keeper there, as far as can be told without it? 126 and above: it cannot
# be run.
keeps() {
  case $keeper in
  TMUX) tmux has-session -t =telexec ;;
  DTACH) command -v dtach >/dev/null || return 127; [ -S "$dir/dtach" ] ;;
  SCREEN) command -v screen >/dev/null || return 127; set -- "$dir/s/"*.t && [ -e "$1" ] ;;
  esac
} 2>/dev/null

# displaced: has another client come?
displaced() {
  { read -r old born <"$dir/client"; } 2>/dev/null && [ "$old" != $$ ]
}

# displace ends the client that was here before.
displace() {
  old=
  { read -r old born <"$dir/client"; } 2>/dev/null
  if [ -n "$old" ]; then
    start_of "$old"
    [ -z "$started" ] || [ "$started" != "$born" ] || kill -s HUP "-$old" || kill -s HUP -- "-$old" || kill -s HUP "$old"
  fi 2>/dev/null
  start_of $$
  (umask 077 && printf '%s %s\n' $$ "$started" >"$dir/client") 2>/dev/null
}

# settle waits until the client that was here before is gone from tmux too, however it
# went: tmux 3.3 dies, and the shell with it, where one goes while another one introduces
# itself in control mode.
settle() {
  [ "$keeper" = TMUX ] || return
  rests=0
  while [ -n "$(tmux list-clients -t =telexec 2>/dev/null)" ] && [ $rests -lt 25 ]; do
    rests=$((rests + 1))
    sleep 0.02 2>/dev/null || sleep 1
  done
}

client() {
  case $keeper in
  TMUX) tmux -C attach-session -d -t =telexec ;;
  DTACH) dtach -a "$dir/dtach" -E -z -r winch ;;
  SCREEN) screen -c "$dir/screenrc" -U -D -r t ;;
  esac
}

# doubt sets failure where tmux says something else than that it is not there: it may be
# another version by now, or want a locale.
doubt() {
  [ "$keeper" = TMUX ] || return
  failure=$(tmux has-session -t =telexec 2>&1 >/dev/null | dd bs=300 count=1 2>/dev/null)
  case $failure in "no server"* | "error connecting"* | "can't find"* | "no current"*) failure= ;; esac
}

# seek looks for a shell that was started before, and sets verdict; failure tells why
# its keeper cannot be asked.
seek() {
  failure= rests=0
  judge
  while [ "$verdict" = lives ]; do
    keeps && return
    [ $? -lt 126 ] || { failure="$keeper cannot be run"; return; }
    # It may just be dying, and its shell with it.
    rests=$((rests + 1))
    [ $rests -lt 25 ] || { verdict=lost; doubt; return; }
    sleep 0.02 2>/dev/null || sleep 1
    judge
  done
}

attach() {
  [ -z "$own" ] || rm -rf "$own"
  cd "$dir" 2>/dev/null || { say gone; return; }
  export SCREENDIR="$dir/s"
  unset TMUX TMUX_PANE STY
  if [ "$mode" = new ]; then
    launch
    [ -z "$failure" ] || { say failed "$failure"; return; }
    read -r who <state
  else
    seek
    [ -z "$failure" ] || { say failed "$failure"; return; }
    case $verdict in
    lives) ;;
    lost) say gone; return ;; # with nothing to reach it by
    *) say "$verdict"; cd / && rm -rf "$dir"; return ;;
    esac
  fi
  displace
  [ "$mode" = new ] || settle
  say started "$who"
  client 2>/dev/null
  judge
  # Where the keeper has died, its shell is about to.
  rests=0
  while [ "$verdict" = lives ] && [ $rests -lt 25 ] && ! displaced && ! keeps; do
    rests=$((rests + 1))
    sleep 0.02 2>/dev/null || sleep 1
    judge
  done
  case $verdict in
  lives) say away ;;
  *) say "$verdict" ;;
  esac
}
attach
