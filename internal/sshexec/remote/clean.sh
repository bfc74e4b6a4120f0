# clean.sh: what is kept here of runs, and their removal. POSIX sh. Set above:
# nonce; the arguments of list_runs and remove_runs are the directories.

say() { printf 'telexec:%s: %s\n' "$nonce" "$*"; }

# enter: only where nobody else could have put something in our way.
enter() { [ ! -h "$1" ] && cd "$1" && [ -O . ]; } 2>/dev/null

# own NAME: can it be an id? Other names are not ours.
own() {
  case $1 in "" | *[!A-Za-z0-9_-]*) false ;; esac
}

# alive: does the one that will finish the run still live, or the command itself?
# A number that somebody else has by now is believed: that only keeps files longer.
alive() {
  what= rest= finisher= pid=
  { read -r what rest <"$id.st"; } 2>/dev/null
  { read -r finisher rest <"$id.b"; } 2>/dev/null
  case $what in
  "done") return 1 ;;
  run) { read -r what boot pid rest <"$id.st"; } 2>/dev/null ;;
  esac
  for one in "${finisher%%:*}" "$pid"; do
    [ -n "$one" ] && kill -s 0 "$one" 2>/dev/null && return
  done
  false
}

# list_runs says the id of every run that nothing of lives: as old where it has not
# been touched for a week. Files of no run that are a day old are removed.
list_runs() {
  for dir; do
    enter "$dir" || continue
    set -f
    for file in $(find . -name '*.st' -type f -mtime +6); do
      id=${file#./} id=${id%.st}
      own "$id" && ! alive && say old "$id"
    done
    for file in $(find . ! -type d -mtime +0); do
      id=${file#./} id=${id%%.*}
      own "$id" && [ ! -e "$id.st" ] && rm -f "$file"
    done
    set +f
    for file in *.st; do
      id=${file%.st}
      own "$id" && [ -e "$file" ] && ! alive && say run "$id"
    done
  done
  say listed
}

# remove_runs FENCE removes the runs in ids, but those of owners behind FENCE.
remove_runs() {
  limit=$1
  shift
  for dir; do
    enter "$dir" || continue
    for id in $ids; do
      [ -e "$id.st" ] || continue
      held=
      { read -r held rest <"$id.f"; } 2>/dev/null
      [ -z "$limit" ] || [ "${held:-0}" -le "$limit" ] || continue
      if [ -e "$id.k" ]; then rm -f "$id".[!g]*; else rm -f "$id".*; fi
      say removed "$id"
    done
  done
  say "done"
}
