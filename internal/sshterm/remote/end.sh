# end.sh: ends a session with all that came of it, and removes its files. POSIX sh,
# behind identity.sh and ladder.sh; dir is set above as well.
end_session() {
  cd / && trap 'rm -rf "$dir"' EXIT
  # The shell is in the list whatever can be seen of sessions and environments; what it
  # has started is found from it.
  look
  start_of "$pid"
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
