# start.sh: starts a durable run, or finds one, and follows it. POSIX sh, behind
# the values of the service, delivered on the standard input of /bin/sh. That
# stays open: its end ends the follower, and nothing else.
#
# Where there is a /proc nothing forks here that need not: tests, reads, writes
# and arithmetic are built in.
#
# The service sets above, in single quotes:
#   nonce     of this follower; begins each line that the follower itself says
#   key       of the run; begins each line in a spool that is not output
#   id, mode  of the run; start: the id was never used. retry: it may have been.
#             resume: only follow. void: so too, or see to it that it never starts
#   fence     of the owner
#   out, err  how many bytes of the spools the owner has
#   follow    tail: tail -f waits for events; poll: it does not
#   input     none, file (it was sent before, as ID.in), open (more may come)
#   given     how many bytes were sent before
#   limit     most that a spool may hold, in blocks of ulimit -f; empty: no limit
#   timeout   in seconds; empty: none
#   sudo      what sudo and the shell behind it read first; empty: no sudo
#   text      of the command file: command.sh with its values
# and new_session, the words that make a command the leader of a new session; with
# a timeout timeout.sh and the ladder come in front. The arguments of main, which
# is called at the end, are the directories in which runs may live; a new one goes
# to the first.
#
#   ID.st       the record, always overwritten in place:
#                 claim BOOT
#                 run BOOT PID GROUP SESSION BORN
#                 exit BOOT CODE, signal BOOT NAME [core], unstarted BOOT WHY
#                 done HOW …: HOW and what follows BOOT in one of those
#   ID.b        who will finish it: PID:BORN
#   ID.go       exists once the command was let go, or never may be
#   ID.o ID.e   the spools of both streams; .cut beside one: not all is in it
#   ID.f        FENCE KEY, and who follows: PID:BORN TAIL TAIL
#   ID.c        the command file, emptied before the command begins
#   ID.r        a reserve of disk space for the last words
#   ID.in…      standard input; ID.bell rings when more has come; ID.n counts it
#   ID.m ID.t   what the shell says about the end; what the timeout's ladder says

# tell says something on both streams of the channel, since neither knows how far
# the other is.
tell() {
  printf '\036telexec:%s: %s\n' "$nonce" "$*" >&2
  printf '\036telexec:%s: %s\n' "$nonce" "$*"
}

# put FILE RECORD overwrites in place: a full disk cannot lose that. The first
# word comes again at the end, which shows a record that was torn.
put() { printf '%-120s%s\n' "$2" "${2%% *}" 1<>"$1"; } 2>/dev/null

# get FILE sets what, the first word (empty: none, or torn), and rest.
get() {
  what= rest=
  { read -r what rest <"$1"; } 2>/dev/null
  case $rest in
  "$what") rest= ;;
  *" $what") rest=${rest%"$what"} rest=${rest%%"  "*} ;;
  *) what= rest= ;;
  esac
}

# born_of PID sets born: its start time, empty where there is no such process.
born_of() {
  born= stat=
  if { IFS= read -r stat </proc/"$1"/stat; } 2>/dev/null; then
    # The name may hold a parenthesis: cut at the last one.
    set -- ${stat##*")"}
    case $1 in Z | X) ;; *) born=${20} ;; esac
  elif [ ! -r /proc/self/stat ]; then
    set -- $(LC_ALL=C ps -o lstart= -p "$1" 2>/dev/null)
    for stat; do born=${born:+${born}_}$stat; done
  fi
}

# lives PID:BORN: is it still that process?
lives() {
  born_of "${1%%:*}"
  [ -n "$born" ] && [ "$born" = "${1#*:}" ]
}

# myself sets me, PID:BORN of this subshell, whose pid $$ is not.
myself() {
  if { read -r me stat </proc/self/stat; } 2>/dev/null; then
    set -- ${stat##*")"}
    me=$me:${20}
  else
    me=$(exec sh -c 'echo $PPID')
    born_of "$me"
    me=$me:$born
  fi
}

# copy SPOOL takes a stream to its spool. At the limit, or on a full disk, it notes
# that and drains, so that the command neither waits nor dies of SIGPIPE.
copy() {
  [ -z "$limit" ] || ulimit -f "$limit"
  cat >>"$1" || { : >"$id.r"; : >"$1.cut"; cat >/dev/null; }
} 2>/dev/null

# copy_sudo does so for standard error, where sudo talks first. It tells whether
# the command has begun, and only then what sudo has said.
copy_sudo() {
  said= line=
  while IFS= read -r line; do
    case $line in "telexec:$key: "*) break ;; esac
    said=$said$line$nl line=
  done
  case $line in
  "telexec:$key: begun")
    get "$id.st"
    head="run $rest" line=
    ;;
  "telexec:$key: directory") head="refused directory missing" line= ;;
  *)
    head="refused sudo"
    put "$id.st" "unstarted $boot sudo"
    ;;
  esac
  { printf '\036telexec:%s: %-160s\n' "$key" "$head"; printf %s "$said$line"; } >>"$1"
  copy "$1"
} 2>/dev/null

# feed gives the command its standard input as it comes: pieces ID.in.FROM.TO, and
# ID.in.eof behind the last.
feed() {
  exec 4<>"$id.bell"
  at=0
  while :; do
    for piece in "$id.in.$at".*; do
      [ -f "$piece" ] || continue
      cat "$piece" || exit
      rm -f "$piece"
      at=${piece##*.}
      continue 2
    done
    [ -f "$id.in.eof" ] && exit
    read -r ring <&4
    [ "$ring" = end ] && exit
  done
} 2>/dev/null

# begin runs the command in the foreground: a background job of a shell without
# job control has SIGINT ignored for ever. The command takes descriptor 5 for its
# standard error itself: a redirection here would also catch what this shell says
# about its end.
begin() {
  case $sudo$input in
  none) $new_session /bin/sh "$id.c" </dev/null ;;
  file) $new_session /bin/sh "$id.c" <"$id.in" ;;
  *)
    {
      exec 5>&- 2>/dev/null
      printf %s "$sudo"
      case $input in file) cat "$id.in" ;; open) feed ;; esac
    } | {
      $new_session /bin/sh "$id.c"
      x=$?
      [ "$input" = open ] && echo end 1<>"$id.bell"
      exit $x
    }
    ;;
  esac
}

# conduct begins the command and records how it ended, before anybody is told.
conduct() {
  watcher=
  if [ -n "$timeout" ]; then
    keep_time 5>&- >/dev/null &
    watcher=$!
  fi
  begin
  x=$?
  # Past the timeout the ladder is let through to its report.
  [ -z "$watcher" ] || [ -f "$id.t" ] || kill "$watcher"
  [ -z "$watcher" ] || wait "$watcher"
  end=exit
  # A signal is 128+n in most shells, which then say so in words; 256+n in ksh,
  # 384+n in yash. Of SIGINT and SIGPIPE they do not speak: those stay codes.
  if [ $x -gt 384 ]; then
    end=signal x=$((x - 384))
  elif [ $x -gt 256 ]; then
    end=signal x=$((x - 256))
  elif [ $x -gt 128 ] && [ -s "$id.m" ]; then
    end=signal x=$((x - 128))
  fi
  if [ $end = signal ]; then
    x=$(kill -l $x)
    { IFS= read -r line <"$id.m"; } 2>/dev/null
    case $line in *ore\ dump*) x="$x core" ;; esac
  fi
  [ -e "$id.st" ] || exit
  get "$id.st"
  [ "$what" != claim ] || end=unstarted
  [ "$what" = unstarted ] || put "$id.st" "$end ${rest%% *} $x"
} 2>"$id.m"

# finish runs when all output is in the spools.
finish() {
  [ -e "$id.st" ] || exit # it was removed
  get "$id.st"
  case $what in exit | signal | unstarted) how="$what ${rest#* }" ;; *) how=killed ;; esac
  for spool in o e; do
    [ ! -e "$id.$spool.cut" ] || how="$how $spool=$(wc -c <"$id.$spool")"
  done
  : >"$id.r"
  put "$id.st" "done $how"
  [ ! -s "$id.t" ] || cat "$id.t" >>"$id.e"
  printf '\036telexec:%s: done %s\n' "$key" "$how" >>"$id.o"
  printf '\036telexec:%s: done %s\n' "$key" "$how" >>"$id.e"
} 2>/dev/null

# follow_spool SPOOL OFFSET
follow_spool() {
  [ $follow != tail ] || exec tail -s 0.1 -c +$(($2 + 1)) -f "$1" 2>/dev/null
  exec 3<"$1"
  if [ "$2" -gt 0 ]; then
    dd bs=65536 skip=$(($2 / 65536)) count=0 <&3
    [ $(($2 % 65536)) -eq 0 ] || dd bs=$(($2 % 65536)) skip=1 count=0 <&3
  fi 2>/dev/null
  # A pause grows while nothing comes.
  before= pause=0.02
  while cat <&3; do
    at=
    { read -r word at </proc/self/fdinfo/3; } 2>/dev/null
    if [ "$at" != "$before" ] || [ -z "$at" ]; then pause=0.02; else
      case $pause in 0.02) pause=0.05 ;; 0.05) pause=0.1 ;; 0.1) pause=0.2 ;; esac
    fi
    before=$at
    sleep $pause || sleep 1
  done 2>/dev/null
}

# attend follows both streams until the service goes, or has all.
attend() {
  follow_spool "$id.o" "$out" </dev/null &
  a=$!
  follow_spool "$id.e" "$err" </dev/null >&2 &
  b=$!
  myself
  put "$id.f" "$fence $key $me $a $b"
  listen
  kill $a $b 2>/dev/null
}

# listen takes the service's words until its end.
listen() {
  while read -r word more; do
    case $word in
    state) judge; tell "state $verdict" ;;
    clean) clean "$more"; break ;;
    esac
  done
}

# clean KEEP removes the run. With KEEP a start of it may still be on its way; ID.go
# stays and stops that one.
clean() {
  get "$id.f"
  [ "${what:-0}" -le "$fence" ] || return
  if [ -n "$1" ]; then rm -f "$id".[!g]*; else rm -f "$id".*; fi
}

# judge sets verdict: live, gone, or final and how.
judge() {
  get "$id.b"
  finisher=$what
  get "$id.st"
  verdict=live
  case $what in
  "done") verdict="final $rest"; return ;;
  "") [ -e "$id.st" ] || { verdict=gone; return; } ;;
  esac
  set -- $rest
  if [ -n "$1" ] && [ "$1" != "$boot" ]; then
    verdict="final rebooted"
  else
    lives "$finisher" && return
    case $what in
    run)
      lives "$2:$5" && return
      verdict="final killed"
      ;;
    claim | "")
      # Let go by now, or never.
      set -C
      { : >"$id.go"; } 2>/dev/null && verdict="final unstarted -"
      set +C
      ;;
    esac
  fi
  # It may have come to its end while we looked.
  get "$id.st"
  case $what in
  "done") verdict="final $rest" ;;
  exit | signal) verdict="final broken $what ${rest#* }" ;;
  esac
}

# find takes us to the directory that has the run.
find_run() {
  for base; do
    cd "$base" 2>/dev/null && [ -O . ] && [ -e "$id.st" ] && return
  done
  false
}

# retire FOLLOWER TAIL TAIL ends a follower whose connection is dead, which it may
# not know yet.
retire() {
  follower=$1
  lives "$follower" || return
  for one in "$2" "$3"; do
    { IFS= read -r stat </proc/"$one"/stat; } || continue
    set -- ${stat##*")"}
    [ "$2" != "${follower%%:*}" ] || kill -s KILL "$one"
  done
  kill -s KILL "${follower%%:*}"
} 2>/dev/null

# resume follows a run that is here.
resume() {
  get "$id.f"
  if [ "${what:-0}" -gt "$fence" ]; then
    tell superseded
    exit 0
  fi
  set -- $rest
  key=${1:-$key}
  [ $# -lt 4 ] || retire "$2" "$3" "$4"
  put "$id.f" "$fence $key"
  tell "dir $PWD"
  judge
  case $verdict in
  live)
    get "$id.n"
    came=${what:--} head=
    # The header tells who it is, also when the record tells more by now.
    { IFS= read -r head <"$id.e"; } 2>/dev/null
    tell "live $key $came ${head#*: }"
    attend
    ;;
  *)
    tell "${verdict%% *} $key ${verdict#* }"
    tail -c +$((out + 1)) "$id.o" 2>/dev/null
    tail -c +$((err + 1)) "$id.e" 2>/dev/null >&2
    tell "end"
    listen
    ;;
  esac
  exit 0
}

# claim makes the run's files; false where somebody else has claimed the id.
claim() {
  set -C
  { printf '%-120s%s\n' "claim $boot" claim >"$id.st"; } 2>/dev/null
  x=$?
  set +C
  if [ $x != 0 ]; then
    # Nobody else can have claimed an id that was never used.
    [ $mode = start ] || [ ! -e "$id.st" ] || return 1
    no_space
  fi
  myself
  {
    put "$id.b" "$me" && put "$id.f" "$fence $key" &&
      printf '%8192s' '' >"$id.r" && printf '%s\n' "$text" >"$id.c" && : >>"$id.o" && : >>"$id.e"
  } 2>/dev/null || no_space
  if [ "$input" = open ]; then
    put "$id.n" "$given"
    [ "$given" = 0 ] || mv "$id.in" "$id.in.0.$given" || no_space
    mkfifo "$id.bell" 2>/dev/null || no_space
  fi
}

no_space() {
  rm -f "$id".*
  tell nospace
  exit 0
}

main() {
  umask 077
  telexec_home=$PWD
  nl='
'
  { read -r boot </proc/sys/kernel/random/boot_id; } 2>/dev/null || boot=-
  if [ $mode != start ]; then
    ! find_run "$@" || resume
    for base; do
      cd "$base" 2>/dev/null && [ -e "$id.go" ] && { tell never; exit 0; }
    done
    [ $mode != resume ] || { tell none; exit 0; }
  fi
  base=$1
  { cd "$base" && [ -O . ] && [ -w . ] && [ ! -h "$base" ]; } 2>/dev/null || { tell nodir; exit 0; }
  case $mode-$base in
  void*)
    set -C
    { : >"$id.go"; } 2>/dev/null && tell never || tell none
    exit 0
    ;;
  retry-/tmp/* | retry-/dev/shm/*)
    # What is not here may have been wiped by a restart of the host.
    tell none
    exit 0
    ;;
  esac
  claim || resume
  export telexec_home TELEXEC_RUN="$id"
  tell "new $key"
  # The run is started by a pipeline and not by "&", which would have SIGINT ignored.
  # Redirections by exec: those of a compound command are kept saved, and the
  # channel would never close.
  exec 7<&0 8>&1 9>&2 </dev/null >/dev/null 2>&1
  {
    exec 7<&- 8>&- 9>&-
    { conduct | copy "$id.o" 5>&-; } 5>&1
  } | {
    exec >/dev/null 7<&- 8>&- 9>&-
    myself
    put "$id.b" "$me"
    if [ -n "$sudo" ]; then copy_sudo "$id.e"; else copy "$id.e"; fi
    finish
  } | {
    exec <&7 >&8 2>&9 7<&- 8>&- 9>&-
    attend
    # Else this shell would wait for the run.
    kill -s KILL $$
  }
}
