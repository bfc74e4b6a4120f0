# hold.sh: what a keeper runs: the shell, as its child, and how it ended. POSIX sh; dir
# and keeper are set in front. A shell takes groups of its own, so what is typed does not reach this
# one; but it may before it has.
trap : INT QUIT TSTP
cd "$dir" || exit
/bin/sh "$dir/start"
echo $? >"$dir/exit"
# What the shell has printed last is on its way to whoever looks: tmux drops it when this
# one ends.
[ "$keeper" != TMUX ] || sleep 0.1 || sleep 1
# dtach goes on for as long as somebody has the terminal open: a job in the background,
# which the shell has left. It gets a moment for what is on its way.
trap '' HUP
[ "$keeper" != DTACH ] || (
  sleep 0.2 || sleep 1
  [ -S "$dir/dtach" ] && case $(cat "/proc/$PPID/comm" || ps -o comm= -p "$PPID") in
  *dtach) kill -s TERM "$PPID" ;;
  esac
) </dev/null >/dev/null 2>&1 &
