# places.sh: where the service may keep files of an account. POSIX sh. say must be
# defined by who calls find_dirs, with umask 077 and first empty: each place is told as
# "dir PATH", or as "old PATH" where nothing new can be made now.

# A directory that is ours alone, may be written, and is no link of somebody's.
usable() {
  mkdir -p "$1" && [ ! -h "$1" ] && cd "$1" && [ -O . ] && [ -w . ] || return
  case $(ls -ld . | cut -c 1-10)$1 in
  drwx------*) ;;
  *"${home:-/nowhere}"/*) chmod 700 . || return ;;
  *) return 1 ;; # where others may write it may have become something else by now
  esac
  { true >".probe.$$" && rm -f ".probe.$$"; }
} 2>/dev/null

find_dirs() {
  uid=$(id -u)
  home=$(cd && pwd) 2>/dev/null
  case $home in
  /?*) set -- "$home/.local/state/telexec" "$home/.cache/telexec" ;;
  esac
  for dir in "$@" "/var/tmp/telexec-$uid" "/tmp/telexec-$uid" "/dev/shm/telexec-$uid"; do
    # Only one more is made; others are told where they are there.
    if [ -n "$first" ] && [ ! -d "$dir" ]; then continue; fi
    if usable "$dir"; then
      first=$dir
      say dir "$dir"
    elif [ -e "$dir" ] || [ ! -d "$home" ]; then
      # There may be runs in it from a better time.
      say old "$dir"
    fi
  done
}
