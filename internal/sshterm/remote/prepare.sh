# prepare.sh: makes the directory of a session with its files. POSIX sh. Set above:
# nonce; dir; files, a function that writes them into the current directory.

say() { printf 'telexec:%s: %s\n' "$nonce" "$*"; }

# forget_old removes the directories of sessions that nobody has come for in a month,
# and of which nothing lives. Other hosts may have the same home: theirs stay.
forget_old() {
  cd .. || return
  here=$(uname -n) now=
  read -r now </proc/sys/kernel/random/boot_id
  # By names that are ids, in which no blank can make two of one.
  for old in $(find . -maxdepth 1 -type d -name '[0-9A-Za-z]*' ! -name '*[!0-9A-Za-z_-]*' -mtime +30); do
    [ -O "$old" ] || continue
    host= pid= boot=
    read -r host <"$old/host"
    [ "${host:-$here}" = "$here" ] || continue
    read -r pid group session boot rest <"$old/state"
    if [ -n "$pid" ] && { [ -z "$now" ] || [ "$boot" = - ] || [ "$boot" = "$now" ]; } && kill -s 0 "$pid"; then continue; fi
    rm -rf "$old"
  done
} 2>/dev/null

# enter DIR goes into a directory that is ours and no link of somebody's, and makes it
# where there is none.
enter() {
  [ -d "$1" ] || mkdir -p "$1"
  [ ! -h "$1" ] && cd "$1" && [ -O . ]
}

prepare() {
  umask 077
  # It was looked for some time ago. In /tmp somebody else may have its name by now, and
  # whoever owns a directory decides what is in it, also by the names of ours.
  base=${dir%/sessions/*}
  enter "$base" && enter "$base/sessions" && enter "$dir" || { say nodir; return; }
  { mkdir -p shell && uname -n >host && files; } || { say nospace; return; }
  say prepared
  forget_old
} 2>/dev/null
