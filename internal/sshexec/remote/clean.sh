# clean.sh: what is kept here of runs, and their removal. POSIX sh. Set above:
# nonce; the arguments of list_runs and remove_runs are the directories.

say() { printf 'telexec:%s: %s\n' "$nonce" "$*"; }

# enter: only where nobody else could have put something in our way.
enter() { [ ! -h "$1" ] && cd "$1" && [ -O . ]; } 2>/dev/null

# list_runs says ID and first word of every record, after removing what is a week
# old and through, and the files of no run that are a day old.
list_runs() {
  for dir; do
    enter "$dir" || continue
    for file in $(find . -name '*.st' -type f -mtime +6); do
      id=${file#./} id=${id%.st}
      { read -r what rest <"$file"; } 2>/dev/null
      # What is not through may still be followed one day, if it lives.
      { read -r finisher rest <"$id.b"; } 2>/dev/null
      [ "$what" != "done" ] && kill -s 0 "${finisher%%:*}" 2>/dev/null && continue
      rm -f "$id".*
      say old "$id"
    done
    for file in $(find . -type f -mtime +0); do
      id=${file#./} id=${id%%.*}
      [ -e "$id.st" ] || rm -f "$file"
    done
    for file in *.st; do
      [ -e "$file" ] || continue
      { read -r what rest <"$file"; } 2>/dev/null
      say run "${file%.st}" "$what"
    done
  done
  say listed
}

# remove_runs removes the runs in ids.
remove_runs() {
  for dir; do
    enter "$dir" || continue
    for id in $ids; do
      [ -e "$id.st" ] || continue
      { read -r fence key followers <"$id.f"; } 2>/dev/null
      rm -f "$id".*
      say removed "$id"
    done
  done
  say "done"
}
