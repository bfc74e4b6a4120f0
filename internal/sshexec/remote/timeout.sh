# timeout.sh: a durable run's timeout, in front of start.sh and behind the ladder.

# keep_time ends the command when its time is over, with the ladder, and puts the
# ladder's report into ID.t. It is in the background of the shell that waits.
keep_time() {
  trap 'kill $nap; exit' TERM
  { sleep "$timeout" || sleep "$((${timeout%.*} + 1))"; } &
  nap=$!
  wait $nap
  get "$id.st"
  [ "$what" = run ] || exit
  trap '' TERM
  : >"$id.t"
  set -- $rest
  pid=$2 group=$3 session=$4 start=$5
  [ "$group" = "$pid" ] || group=0
  [ "$session" = "$pid" ] || session=0
  proc=/proc run= grace_int=10 grace_term=40
  say() { printf '\036telexec:%s: report %s\n' "$key" "$*" >>"$id.t"; }
  end_all
} 2>/dev/null
