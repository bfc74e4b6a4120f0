# find.sh: where are the files of a session that was opened before? POSIX sh, behind
# places.sh. Set above: nonce; id. It tells "kept KEEPER DIR"; "place DIR" where new
# files can be put; "hidden" where there may be some that cannot be seen now; and last
# "looked".

tell() { printf 'telexec:%s: %s\n' "$nonce" "$*"; }

# closed DIR: is it ours, and may not be entered?
closed() { [ -d "$1" ] && [ -O "$1" ] && [ ! -x "$1" ]; }

# sound DIR: is it ours, no link, and nobody else's to write?
sound() {
  [ ! -h "$1" ] && [ -d "$1" ] && [ -O "$1" ] || return
  case $(ls -ld "$1" | cut -c 1-10) in ?????w* | ????????w?) false ;; esac
}

# roomy DIR: is there space in it?
roomy() { { echo >"$1/.room.$$"; } && rm -f "$1/.room.$$" || { rm -f "$1/.room.$$"; false; }; }

# say hears of each place: what cannot be written now may have them all the same.
say() {
  # Without space there it is no first one, and the next is looked for.
  [ "$1" != dir ] || if roomy "$2"; then tell place "$2"; else first=; fi
  one=$2/sessions/$id
  if closed "$2" || closed "$2/sessions" || closed "$one"; then
    tell hidden
    return
  fi
  sound "$2" && sound "$2/sessions" && sound "$one" && [ -f "$one/state" ] || return
  line=
  # Where nothing keeps it there is no such file.
  IFS= read -r line <"$one/hold"
  case $line in *" keeper="*) line=${line##* keeper=} ;; *) line=NONE ;; esac
  tell kept "$line" "$one"
}

find_session() {
  umask 077
  first=
  find_dirs
  # Of a home that is not there nothing is known.
  [ -d "$home" ] || tell hidden
  for one in "$home/.local" "$home/.local/state" "$home/.cache"; do
    ! closed "$one" || tell hidden
  done
  tell looked
} 2>/dev/null </dev/null
find_session
