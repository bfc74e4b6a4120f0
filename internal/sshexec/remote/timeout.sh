# timeout.sh: a durable run's timeout, in front of start.sh and behind the ladder.
# password, which is for sudo, is set in front.

# keep_time ends the command when its time is over, with the ladder, and puts the
# ladder's report into ID.t. It is in the background of the shell that finishes,
# so that it is there until the last child of the command has let go of the output.
keep_time() {
  nap=
  trap 'kill ${nap:-$!}; exit' TERM
  sleep "$timeout" &
  nap=$!
  wait $nap || {
    # A sleep that knows only seconds has ended at once.
    sleep $((${timeout%.*} + 1)) &
    nap=$!
    wait $nap
  }
  trap '' TERM
  # It may not have been let go yet.
  waits=0
  while get "$id.st"; [ "$what" = claim ] && [ $waits -lt 200 ]; do
    waits=$((waits + 1))
    sleep 0.05 || sleep 1
  done
  case $what in run | exit | signal) ;; *) exit ;; esac
  true >"$id.r" # on a full disk the report takes the reserve
  true >"$id.t"
  set -- $rest
  pid=$2 group=$3 session=$4
  IFS=_
  set -- $5
  unset IFS
  start=$* sudo=
  [ "$group" = "$pid" ] || group=0
  [ "$session" = "$pid" ] || session=0
  through=
  [ ! -e "$id.s" ] || through=yes
  proc=/proc run= spools=$id grace_int=10 grace_term=40
  say() { printf '\036telexec:%s: report %s\n' "$key" "$*" >>"$id.t"; }
  end_all
}
