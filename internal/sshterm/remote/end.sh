# end.sh: ends a session with all that came of it, and removes its files. POSIX sh,
# behind identity.sh and ladder.sh; dir is set above as well, and client, where the
# keeper's client is to be ended, too.
end_session() {
  cd / && trap 'rm -rf "$dir"' EXIT
  old=
  if [ -n "$client" ]; then
    # It may be about to start the shell, unseen yet: there is nothing to be run any more.
    rm -f "$dir/start" "$dir/hold"
    { read -r old born <"$dir/client"; } 2>/dev/null
  fi
  # The shell is in the list whatever can be seen of sessions and environments; what it
  # has started is found from it.
  look
  start_of "$pid"
  # It bears no mark, and is the first of its group.
  if [ -n "$old" ]; then
    start_of "$old"
    [ -z "$started" ] || [ "$started" != "$born" ] || to_group KILL "$old" || kill -s KILL "$old"
    start_of "$pid"
  fi
  # The kernel may have given away the number of its session, which is that of whoever ran
  # it. What is left is found by the mark.
  [ -n "$started" ] || [ "$session" = "$pid" ] || session=0
  if [ -n "$started" ] && [ "$started" = "$start" ]; then
    set -f
    set -- $start
    IFS=_
    seen="$pid:$*"
    unset IFS
    set +f
  fi
  end_all
}
