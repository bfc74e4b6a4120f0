# identity.sh: is it still the process that we know? POSIX sh, put in front of
# ladder.sh and signal.sh and delivered on the standard input of /bin/sh.
#
# The service sets above, in single quotes:
#   nonce   begins every line of the answer, so that nothing else can be one
#   id      value of the marker TELEXEC_ID in the environment of the command; empty:
#           it is not looked for
#   pid     of the command; 0 where it never told one
#   group   its process group, 0 where that is not its own
#   session its session, 0 where that is not its own
#   boot    boot id of the host when it started, - where unknown
#   start   its start time: field 22 of /proc/PID/stat, or words of ps
#   proc    /proc
#   run     directory and id of a durable run, whose owner has fence; else empty
#   password  for sudo; empty: only where it asks for none

say() { printf 'telexec:%s: %s\n' "$nonce" "$*"; }

# to_group SIGNAL GROUP. dash wants the "--" before a negative number; BusyBox does
# not know it, and complains when it has sent the signal already.
to_group() { kill -s "$1" "-$2" || kill -s "$1" -- "-$2"; } 2>/dev/null

# how: what can be seen here. proc: all processes; own: only the user's own
# (/proc mounted with hidepid, so that init cannot be seen); ps; none.
look() {
  # Not by $$, the pid of a shell that may be gone when the timeout's ladder runs.
  how=none
  if [ -r "$proc/self/stat" ]; then
    how=proc
    [ -r "$proc/1/stat" ] || [ "$(id -u)" = 0 ] || how=own
  elif [ -n "$(ps -A -o pid=)" ]; then
    how=ps
  fi
} 2>/dev/null

# start_of PID sets started (empty for no such process), state and stat.
start_of() {
  started= state= stat=
  case $how in
  proc | own)
    IFS= read -r stat <"$proc/$1/stat"
    # The name may hold a parenthesis: cut at the last one.
    set -- ${stat##*")"}
    state=$1 started=${20}
    ;;
  ps)
    set -- $(LC_ALL=C ps -o lstart= -p "$1")
    started=$*
    ;;
  esac
} 2>/dev/null

# identify ends the script where there can be nothing left of the command.
identify() {
  # Another owner may have taken it over while we were asleep.
  if [ -n "$run" ] && { read -r held rest <"$run.f"; } 2>/dev/null && [ "$held" -gt "$fence" ]; then
    say superseded
    exit 0
  fi
  look
  now=
  { IFS= read -r now <"$proc/sys/kernel/random/boot_id"; } 2>/dev/null
  if [ "$boot" != - ] && [ -n "$now" ] && [ "$now" != "$boot" ]; then
    say rebooted
    exit 0
  fi
  start_of "$pid"
  if [ -n "$started" ] && [ "$started" != "$start" ]; then
    # The pid belongs to somebody else now. The kernel gives a number away again
    # only when no group and no session bears it, so ours are empty as well.
    pid=0 group=0 session=0 started=
  fi
}

# sudo_allowed: may we reach processes of other users? Asked once, since sudo
# writes every refusal into the log of the host.
sudo_allowed() {
  if [ -z "$sudo" ]; then
    sudo=no
    [ "$(id -u)" = 0 ] || { as_root true && sudo=yes; }
  fi
  [ "$sudo" = yes ]
} </dev/null 2>/dev/null
sudo=

as_root() {
  if [ -n "$password" ]; then
    printf '%s\n' "$password" | sudo -S -p '' "$@"
  else
    sudo -n "$@"
  fi
}
