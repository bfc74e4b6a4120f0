# probe.sh: what is there for durable runs? POSIX sh. Set above: nonce. Each
# answer is a line "WORD VALUE".

say() { printf 'telexec:%s: %s\n' "$nonce" "$*"; }

# A directory that is ours alone, may be written, and is no link of somebody's.
usable() {
  mkdir -p "$1" && [ ! -h "$1" ] && cd "$1" && [ -O . ] && [ -w . ] || return
  case $(ls -ld . | cut -c 1-10) in drwx------) ;; *) chmod 700 . || return ;; esac
  { : >".probe.$$" && rm -f ".probe.$$"; }
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
    usable "$dir" || continue
    first=$dir
    say dir "$dir"
  done
}

probe() {
  umask 077
  first=
  find_dirs
  set --
  if command -v setsid >/dev/null; then
    say new_session setsid
  elif perl -MPOSIX=setsid -e 1 >/dev/null; then
    say new_session 'perl -MPOSIX=setsid -e setsid;exec(@ARGV)'
  elif python3 -c 'import os; os.setsid' >/dev/null; then
    say new_session 'python3 -c __import__("os").setsid(),__import__("os").execvp(__import__("sys").argv[1],__import__("sys").argv[1:])'
  fi
  case $(tail --version </dev/null) in *GNU*) say follow tail ;; *) say follow poll ;; esac
  for tool in cat tail wc rm awk mkfifo sudo; do
    command -v $tool >/dev/null && say has $tool
  done
  [ -r /proc/self/stat ] && say has proc
  say probed
} 2>/dev/null
