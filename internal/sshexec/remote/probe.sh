# probe.sh: what is there for durable runs? POSIX sh, behind places.sh. Set above:
# nonce. Each answer is a line "WORD VALUE".

say() { printf 'telexec:%s: %s\n' "$nonce" "$*"; }

probe() {
  umask 077
  first=
  find_dirs
  set --
  if command -v setsid >/dev/null; then
    say new_session setsid
  elif perl -MPOSIX=setsid -e 1 >/dev/null; then
    say new_session 'perl -MPOSIX=setsid -e setsid;exec(@ARGV)'
  elif python3 -c 'import os, signal; os.setsid, signal.SIGXFSZ' >/dev/null; then
    # Python ignores two signals, which would stay so.
    sig='__import__("signal")' os='__import__("os")' sys='__import__("sys")'
    say new_session "python3 -c $sig.signal($sig.SIGPIPE,$sig.SIG_DFL),$sig.signal($sig.SIGXFSZ,$sig.SIG_DFL),$os.setsid(),$os.execvp($sys.argv[1],$sys.argv[1:])"
  fi
  case $(tail --version </dev/null) in *GNU*) say follow tail ;; *) say follow poll ;; esac
  for tool in awk cat dd grep mkfifo mv rm sleep tail wc; do
    command -v $tool >/dev/null && say has $tool
  done
  if [ -r /proc/self/stat ]; then
    say has proc
  elif [ -n "$(LC_ALL=C ps -o lstart= -p $$)" ]; then
    say has ps
  fi
  case $(command -v printf) in */*) ;; *) say has printf ;; esac
  { read -r boot </proc/sys/kernel/random/boot_id; } && say boot "$boot"
  say probed
} 2>/dev/null
