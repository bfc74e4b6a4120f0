# start.sh: starts a durable run, or finds one, and follows it. POSIX sh, behind
# the values of the service, delivered on the standard input of /bin/sh. That
# stays open: its end ends the follower, and nothing else.
#
# Where there is a /proc nothing forks here that need not: tests, reads, writes
# and arithmetic are built in. An exec is most of what anything costs here.
#
# The service sets above, in single quotes:
#   nonce     of this follower; begins each line that the follower itself says
#   key       of the run; begins each line in a spool that is not output
#   id, mode  of the run; start: it was never sent before. retry: it may have been.
#             resume: only follow. void: so too, or see to it that it never starts
#   since     the boot id when it was first sent; empty: not known
#   fence     of the owner
#   out, err  of the spools: the first byte that the owner has not, from 1; and how
#             many blocks of 64 KiB and bytes are before it (not all shells can
#             count so far)
#   follow    tail: tail -f waits for events; poll: it does not
#   now       yes: follow at once; no: when the service says go
#   input     none, file (it was sent before, as ID.in), open (more may come)
#   given     how many bytes were sent before
#   limit     most that a spool may hold, in blocks of ulimit -f; empty: no limit
#   timeout   in seconds; empty: none
#   sudo      what sudo and the shell behind it read first; empty: no sudo
#   builtin   yes: printf is, so that what it gets is no program's argument
#   text      of the command file: command.sh with its values
# and new_session, the words that make a command the leader of a new session; with
# a timeout timeout.sh and the ladder come in front. The arguments of main, which
# is called at the end, are the directories in which runs may live; a new one goes
# to the first. The files there are told in docs/remote-protocol.md.

# Standard error is nobody's here: what a tool complains about must not come to
# the service as the command's. The channel's is descriptor 9.

# tell says something on both streams of the channel, since neither knows how far
# the other is; note says it on one.
tell() {
  note "$@"
  printf '\036telexec:%s: %s\n' "$nonce" "$*"
}
note() { printf '\036telexec:%s: %s\n' "$nonce" "$*" >&9; }

# put FILE RECORD overwrites in place: a full disk cannot lose that. The first
# word comes again at the end, which shows a record that was torn.
put() { printf '%-120s%s\n' "$2" "${2%% *}" 1<>"$1"; }

# get FILE sets what, the first word (empty: none, or torn), and rest.
get() {
  what= rest=
  read -r what rest <"$1"
  case $rest in
  "$what") rest= ;;
  *" $what") rest=${rest%"$what"} rest=${rest%%"  "*} ;;
  *) what= rest= ;;
  esac
}

# give TEXT says it, but never as an argument of a program.
give() {
  if [ $builtin = yes ]; then
    printf '%s\n' "$1"
  else
    cat <<END
$1
END
  fi
}

# make FILE makes an empty file; false where there is one. With ":", which is a
# special builtin, a shell would have to exit.
make() {
  set -C
  true >"$1"
  made=$?
  set +C
  return $made
}

# born_of PID sets born: its start time, empty where there is no such process.
born_of() {
  born= stat=
  [ -n "$1" ] || return
  if IFS= read -r stat </proc/"$1"/stat; then
    # The name may hold a parenthesis: cut at the last one.
    set -- ${stat##*")"}
    case $1 in Z | X) ;; *) born=${20} ;; esac
  elif [ ! -r /proc/self/stat ]; then
    set -- $(LC_ALL=C ps -o lstart= -p "$1")
    for stat; do born=${born:+${born}_}$stat; done
  fi
}

# lives PID:BORN: is it still that process?
lives() {
  born_of "${1%%:*}"
  [ -n "$born" ] && [ "$born" = "${1#*:}" ]
}

# child PID PARENT: is it a child of that process?
child() {
  IFS= read -r stat </proc/"$1"/stat || return
  parent=$2
  set -- ${stat##*")"}
  [ "$2" = "$parent" ]
}

# slay PID:BORN kills it, if it is still that process.
slay() { lives "$1" && kill -s KILL "${1%%:*}"; }

# myself sets me, PID:BORN of this subshell, whose pid $$ is not.
myself() {
  if read -r me stat </proc/self/stat; then
    set -- ${stat##*")"}
    me=$me:${20}
  else
    me=$(exec sh -c 'echo $PPID')
    born_of "$me"
    me=$me:$born
  fi
}

# copy SPOOL takes a stream to its spool. At the limit, or on a full disk, it notes
# that and drains, so that the command neither waits nor dies of SIGPIPE. Each cat
# has the end of the whole, descriptor 6, in hand: when this shell is killed,
# nobody says that all has come before cat is through.
copy() {
  if [ -n "$limit" ]; then
    (ulimit -f "$limit"; exec cat 6>&1 >>"$1")
  else
    cat 6>&1 >>"$1"
  fi || [ -e "$id.x" ] || { true >"$id.r"; true >"$1.cut"; cat 6>&1 >/dev/null; }
}

# copy_sudo does so for standard error, where sudo talks first. It notes that the
# command has begun, or why it has not, and then what sudo has said.
copy_sudo() {
  said= line=
  while IFS= read -r line; do
    # In front of it may stand what somebody has asked without a line end.
    case $line in *"telexec:$key: "*)
      said=$said${line%%"telexec:$key: "*} line="telexec:$key: ${line#*"telexec:$key: "}"
      break
      ;;
    esac
    said=$said$line$nl line=
  done
  case $line in
  "telexec:$key: begun") true >"$id.a"; line= ;;
  "telexec:$key: directory "*) refused=${line#"telexec:$key: "} line= ;;
  *) refused=sudo ;;
  esac
  printf %s "$said$line" >>"$1"
  copy "$1"
}

# feed gives the command its standard input as it comes: pieces ID.in.FROM.TO, and
# ID.in.eof behind the last, which it makes itself when nobody reads any more. The
# last piece may come while we look: only what was the end before is the end.
feed() {
  exec 4<>"$id.bell"
  at=0
  while :; do
    all=
    [ ! -f "$id.in.eof" ] || all=yes
    for piece in "$id.in.$at".*; do
      [ -f "$piece" ] || continue
      cat "$piece" || { true >"$id.in.eof"; return; }
      rm -f "$piece"
      at=${piece##*.}
      # Who has brought it may have died before he had written that.
      get "$id.n"
      [ "${what:-0}" -ge "$at" ] || put "$id.n" "$at"
      continue 2
    done
    [ -z "$all" ] || return
    read -r ring <&4
    [ "$ring" != end ] || return
  done
}

# begin runs the command in the foreground: a background job of a shell without
# job control has SIGINT ignored for ever.
begin() {
  case $sudo$input in
  none) carry_out </dev/null ;;
  file) carry_out <"$id.in" ;;
  *)
    {
      exec 5>&- 2>/dev/null
      myself
      put "$id.q" "$me"
      [ -z "$sudo" ] || give "$sudo"
      case $input in file) cat "$id.in" ;; open) feed ;; esac
    } | {
      # Whichever of the two shells is killed, the other ends the feeder.
      (carry_out; all_fed)
      all_fed
    }
    ;;
  esac
} 2<>"$id.m"

# all_fed ends what feeds the command. A child that has the input still, and does
# not read it, must not keep us.
all_fed() {
  [ "$input" != open ] || { true >"$id.in.eof"; echo end 1<>"$id.bell"; }
  get "$id.q"
  slay "$what"
}

# carry_out runs the command and records how it ended, before anybody is told. The
# command takes descriptor 5 for its standard error itself: a redirection here
# would also catch what this shell says about its end.
carry_out() {
  TELEXEC_ID=$id telexec_home=$home telexec_umask=$mask telexec_boot=$boot $new_session /bin/sh "$id.c"
  x=$?
  ended=exit
  # A signal is 128+n in most shells, which then say so in words; 256+n in ksh,
  # 384+n in yash. Of SIGINT and SIGPIPE they do not speak: those stay codes.
  if [ $x -gt 384 ]; then
    ended=signal x=$((x - 384))
  elif [ $x -gt 256 ]; then
    ended=signal x=$((x - 256))
  elif [ $x -gt 128 ] && last_words && [ -n "$line" ]; then
    ended=signal x=$((x - 128))
  fi
  if [ $ended = signal ]; then
    x=$(kill -l $x)
    last_words
    case $line in *ore\ dump*) x="$x core" ;; esac
  fi
  get "$id.st"
  case $what in
  run) put "$id.st" "$ended $rest $x" ;;
  claim) put "$id.st" "unstarted $boot $x" ;;
  esac
}

# last_words sets line: what the shell has said of the command's end. Before that
# come what the login's environment makes any program say, and command.sh's line.
last_words() {
  while read -r line && [ "$line" != telexec ]; do :; done
  read -r line
} <"$id.m"

# finish runs when all output is in the spools. Where nobody has followed yet, it
# gives the channel itself what there is.
finish() {
  if [ -n "$watcher" ]; then
    true >"$id.z"
    # Past the timeout the ladder is let through to its report.
    [ -e "$id.t" ] || kill "$watcher"
    wait "$watcher"
  fi
  [ -e "$id.st" ] || return # it was removed
  get "$id.st"
  case $what in
  exit | signal)
    set -- $rest
    [ $# -lt 6 ] || shift 5
    how="$what $*"
    ;;
  unstarted) how="$what ${rest#* }" ;;
  claim) how="unstarted -" ;; # who was to start it is dead, else we would not be here
  *) how=killed ;;
  esac
  [ -z "$refused" ] || how="unstarted $refused"
  case $how in unstarted*) true >"$id.c" ;; esac
  for spool in o e; do
    [ -e "$id.$spool.cut" ] || continue
    set -- $(wc -c <"$id.$spool")
    how="$how $spool=$1"
  done
  true >"$id.r"
  # What the timeout's ladder has said comes behind the output.
  [ ! -s "$id.t" ] || ! spool "$id.e" || cat "$id.t" >>"$id.e"
  put "$id.st" "done $how"
  get "$id.f"
  set -- $rest
  if [ "$now" = no ] && [ $# -lt 2 ] && make "$id.d"; then
    if [ -s "$id.o" ] || [ -s "$id.e" ]; then
      cat "$id.o" >&8 &
      a=$!
      cat "$id.e" >&9 &
      b=$!
      get "$id.f"
      [ "${what:-0}" -gt "$fence" ] || put "$id.f" "$fence $key $me - $a $b"
      wait $a && wait $b || return # who was to have it will look again
    fi
    printf '\036telexec:%s: done %s\n' "$key" "$how" >&9
    printf '\036telexec:%s: done %s\n' "$key" "$how" >&8
  elif [ -e "$id.st" ]; then
    # One that somebody has removed is not made again: its output is not all there.
    for spool in o e; do
      ! spool "$id.$spool" || printf '\036telexec:%s: done %s\n' "$key" "$how" >>"$id.$spool"
    done
  fi
}

# spool FILE: is it one, and nothing that was put in its place?
spool() { [ -f "$1" ] && [ ! -h "$1" ]; }

# follow_spool SPOOL FIRST BLOCKS BYTES
follow_spool() {
  spool "$1" || exit
  [ $follow != tail ] || exec tail -s 0.1 -c +$2 -f "$1"
  exec 3<"$1"
  [ $3 = 0 ] || dd bs=65536 skip=$3 count=0 <&3
  [ $4 = 0 ] || dd bs=$4 skip=1 count=0 <&3
  # A pause grows while nothing comes.
  before= pause=0.02 idle=0
  while kill -s 0 $$ && cat <&3; do
    at=
    read -r word at </proc/self/fdinfo/3
    if [ "$at" != "$before" ] || [ -z "$at" ]; then pause=0.02 idle=0; else
      idle=$((idle + 1))
      case $idle in 10) pause=0.05 ;; 20) pause=0.1 ;; 30) pause=0.2 ;; 100) pause=0.5 ;; esac
    fi
    before=$at
    sleep $pause || sleep 1
  done
}

# go follows both streams, and tells when the command runs.
go() {
  [ -z "$helpers" ] || return
  myself
  heed
  follow_spool "$id.o" $out </dev/null &
  a=$!
  follow_spool "$id.e" $err </dev/null >&9 &
  b=$!
  helpers="$a $b"
  put "$id.f" "$fence $key $me $leader $a $b"
  announce && return
  {
    pause=0.005
    until announce; do
      kill -s 0 "${me%%:*}" || exit
      sleep $pause || sleep 1
      [ $pause != 0.01 ] || pause=0.03
      [ $pause != 0.005 ] || pause=0.01
    done
  } </dev/null &
}

# announce tells that the command runs; false where it may begin yet.
announce() {
  get "$id.st"
  case $what in
  claim | "") [ ! -e "$id.st" ] ;;
  run | exit | signal)
    # With sudo it has begun when sudo has let it.
    [ ! -e "$id.s" ] || [ -e "$id.a" ] || return
    note "run $rest"
    ;;
  esac
}

# attend serves the service until that goes, or has all.
attend() {
  [ "$now" != yes ] || ! unfollowed || go
  while read -r word more; do
    case $word in
    go) ! unfollowed || go ;;
    state)
      watched
      judge
      note "state $verdict"
      ;;
    clean) clean "$more"; break ;;
    esac
  done
  leave
}

# watched sees to it that we are still the follower, and that we follow: an older
# owner may have woken up and written its fence over ours, and a tail may be killed.
watched() {
  [ -n "$helpers" ] || return
  heed
  [ "$what" = "$fence" ] || [ ! -e "$id.st" ] || put "$id.f" "$fence $key $me $leader $helpers"
  for one in $helpers; do
    born_of "$one"
    [ -n "$born" ] || leave
  done
}

# unfollowed: is it for us to follow? Not where the finisher has given all, nor
# where another follower came.
unfollowed() {
  [ $mode != follow ] && ! make "$id.d" || return 0
  heed
  false
}

# heed ends the follower where a later owner has come.
heed() {
  get "$id.f"
  [ "${what:-0}" -le "$fence" ] || { tell superseded; leave; }
}

# leave ends the follower. The shell that came first would wait for the run.
leave() {
  for one in $helpers; do
    { child "$one" "${me%%:*}" || [ ! -r /proc/self/stat ]; } && kill "$one"
  done
  [ $mode = follow ] || slay "$leader"
  exit 0
}

# clean KEEP removes the run. With KEEP a start of it may still be on its way; ID.go
# stays and stops that one.
clean() {
  get "$id.f"
  [ "${what:-0}" -le "$fence" ] || return
  if [ -n "$1" ] || [ -e "$id.k" ]; then rm -f "$id".[!g]*; else rm -f "$id".*; fi
  note cleaned
}

# judge sets verdict: live, gone, or final and how. Nothing is final on one look: it
# may be between two things.
judge() {
  looks=0
  while assess; [ "$verdict" = doubt ] && [ $looks -lt 4 ]; do
    looks=$((looks + 1))
    sleep 0.1 || sleep 1
  done
  [ "$verdict" = doubt ] || return
  case $what in
  exit | signal) verdict="final broken $what $how" ;;
  unstarted) verdict="final unstarted $how" ;;
  claim | "")
    # Let go by now, or never.
    # What was not on the disk when the host fell over tells nothing.
    if make "$id.go" && [ $lost = killed ]; then verdict="final unstarted -"; else verdict="final $lost"; fi
    ;;
  *) verdict="final $lost" ;;
  esac
}

# assess takes one look.
assess() {
  get "$id.b"
  finisher=$what finished_on=${rest%% *} lost=killed
  get "$id.st"
  verdict=live
  case $what in
  "done") verdict="final $rest"; return ;;
  "") [ -e "$id.st" ] || { verdict=gone; return; } ;;
  esac
  set -- $rest
  on=${1:-$finished_on}
  [ "${on:-$boot}" = "$boot" ] || lost=rebooted
  if [ $lost = killed ]; then
    lives "$finisher" && return
    case $what in
    claim) lives "$2" && return ;;
    run) lives "$2:$5" && return ;;
    esac
  fi
  verdict=doubt
  case $what in
  exit | signal)
    how=
    [ $# -lt 6 ] || { shift 5; how=$*; }
    ;;
  unstarted) how=${rest#* } ;;
  esac
}

# find_run takes us to the directory that has the run, which is base then.
find_run() {
  unsure=
  for base; do
    [ ! -h "$base" ] || continue
    if ! cd "$base"; then
      [ ! -e "$base" ] || unsure=yes
      # The home may not be mounted yet.
      case $base in */.*/*) [ -d "${base%/.*/*}" ] || unsure=yes ;; esac
      continue
    fi
    [ -O . ] && [ -e "$id.st" ] && return
  done
  # What cannot be looked into now may be looked into later.
  [ -z "$unsure" ] || { tell unsure; exit 0; }
  false
}

# retire FOLLOWER LEADER TAIL TAIL ends a follower whose connection is dead, which
# it may not know yet.
retire() {
  follower=$1
  if lives "$follower"; then
    for one in $3 $4; do
      child "$one" "${follower%%:*}" && kill -s KILL "$one"
    done
    kill -s KILL "${follower%%:*}"
  fi
  slay "$2"
}

# removed ends us where a run was removed while we looked at it. One that void called
# off before it was let go has not run: whoever had begun to start it was told so,
# and has cleaned up. Of that one stays only what stops every start.
removed() {
  case $called_off in *"$nl$base$nl"*)
    make "$id.go"
    rm -f "$id.f" "$id.k" "$id.d"
    tell never
    exit 0
    ;;
  esac
  tell none
  exit 0
}

# resume follows a run that is here.
resume() {
  # Who has just claimed it has not said yet by which key it goes.
  tries=0
  while get "$id.f"; [ -z "$rest" ] && [ -e "$id.st" ] && [ $tries -lt 20 ]; do
    tries=$((tries + 1))
    sleep 0.05 || sleep 1
  done
  [ -e "$id.st" ] || removed
  if [ "${what:-0}" -gt "$fence" ]; then
    tell superseded
    exit 0
  fi
  set -- $rest
  if [ $# -gt 0 ]; then
    key=$1
  else
    get "$id.b"
    [ -z "$rest" ] || key=${rest#* }
  fi
  put "$id.f" "$fence $key"
  [ $# -lt 3 ] || retire "$2" "$3" "$4" "$5"
  case $mode in retry | void) true >"$id.k" ;; esac
  make "$id.d"
  mode=follow now=yes
  note "dir $PWD"
  judge
  case $verdict in
  gone) removed ;;
  live)
    get "$id.n"
    tell "live $key ${what:--}"
    ;;
  *)
    # What is in the spools is all there will be, if they are still there.
    { spool "$id.o" && spool "$id.e"; } || case $verdict in "final exit"* | "final signal"*) verdict="final broken ${verdict#final }" ;; esac
    tell "${verdict%% *} $key ${verdict#* }"
    { ! spool "$id.o" || tail -c +${out%% *} "$id.o"; } && { ! spool "$id.e" || tail -c +${err%% *} "$id.e" >&9; } || exit
    tell "end"
    now=no
    ;;
  esac
  myself
  leader=$me
  attend
}

# claim makes the run's files; false where somebody else has claimed the id.
claim() {
  myself
  leader=$me
  if ! make "$id.st"; then
    [ ! -e "$id.st" ] || return 1
    no_space
  fi
  {
    # Whoever finds the key follows the spools.
    put "$id.st" "claim $boot $me" && true >>"$id.o" && true >>"$id.e" && put "$id.f" "$fence $key" &&
      printf '%8192s' '' >"$id.r" && printf '%160s\n' '' >"$id.m" && give "$text" >"$id.c"
  } || no_space
  [ $mode = start ] || true >"$id.k"
  [ -z "$sudo" ] || true >"$id.s" || no_space
  if [ "$input" = open ]; then
    put "$id.n" "$given" || no_space
    [ "$given" = 0 ] || mv "$id.in" "$id.in.0.$given" || no_space
    mkfifo "$id.bell" || no_space
  fi
}

# no_space: nothing has started yet, and nothing of it stays but a tombstone.
no_space() {
  rm -f "$id".[!g]*
  tell nospace
  exit 0
}

# unless_tombstone looks in all directories for what stops every start: ID.go
# alone. With more beside it, it is what is left of a run that was removed.
unless_tombstone() {
  for base; do
    [ ! -h "$base" ] && cd "$base" && [ -O . ] && [ -e "$id.go" ] && [ ! -e "$id.st" ] || continue
    if [ -e "$id.f" ]; then tell none; else tell never; fi
    exit 0
  done
}

# start_run starts what nobody has started.
start_run() {
  # It may have run in what is not there any more, or not yet.
  lacking=none
  [ $mode != start ] || { lacking=nodir; unless_tombstone "$@"; }
  { [ ! -h "$new" ] && cd "$new" && [ -O . ] && [ -w . ]; } || { tell $lacking; exit 0; }
  # What is not here may have been wiped by a restart of the host, or not have
  # been on the disk yet when it fell over.
  case $mode-$since-$new in
  start-* | "retry-$boot-"*) ;;
  retry--/tmp/telexec-* | retry--/dev/shm/telexec-* | retry-[!-]*) tell none; exit 0 ;;
  esac
  case $input-$given in none-* | open-0) ;; *) [ -e "$id.in" ] || [ -e "$id.st" ] || { tell noinput; exit 0; } ;; esac
  claim || resume
  # The run is started by a pipeline and not by "&", which would have SIGINT ignored.
  # Redirections by exec: those of a compound command are kept saved, and the
  # channel would never close.
  exec 7<&0 8>&1 </dev/null >/dev/null
  {
    exec 7<&- 8>&- 9>&-
    { begin | copy "$id.o" 5>&-; } 5>&1
  } | {
    exec >/dev/null 7<&-
    myself
    put "$id.b" "$me $boot $key"
    # Whoever speaks first to the channel may die of it, or must not.
    if [ "$now" = no ]; then
      trap '' PIPE
      tell "new $key" >&8
    else
      exec 8>&- 9>&-
    fi
    [ -z "$timeout" ] || {
      keep_time </dev/null 8>&- 9>&- &
      watcher=$!
    }
    if [ -n "$sudo" ]; then copy_sudo "$id.e"; else copy "$id.e"; fi
    finish
  } | {
    exec <&7 >&8 7<&- 8>&-
    [ "$now" = no ] || tell "new $key"
    attend
  }
}

main() {
  exec 9>&2 2>/dev/null
  home=$PWD helpers= watcher= refused= called_off=
  nl='
'
  # The command is to have the login's own umask; reading it costs no fork.
  word=
  { read -r word && read -r word mask; } </proc/self/status
  [ "$word" = Umask: ] || mask=$(umask)
  umask 077
  read -r boot </proc/sys/kernel/random/boot_id || boot=-
  export TELEXEC_RUN="$id"
  if [ $mode != start ]; then
    ! find_run "$@" || resume
    [ $mode = resume ] || unless_tombstone "$@"
  fi
  case $mode in
  resume) tell none ;;
  void)
    for base; do
      [ ! -h "$base" ] && cd "$base" && [ -O . ] && make "$id.go" && called_off=$called_off$nl$base$nl
    done
    # It may have been started while we looked.
    ! find_run "$@" || resume
    if [ -n "$called_off" ]; then tell never; else tell none; fi
    ;;
  *) start_run "$@" ;;
  esac
  exit 0
}
