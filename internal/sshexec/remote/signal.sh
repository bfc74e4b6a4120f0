# signal.sh: one signal, name in $signal, to the command's process group.

# group_lives: is anybody in the group who is not a zombie? Asked when its leader
# is gone: where nobody reaps orphans, kill would go on to succeed for ever.
group_lives() {
  case $how in
  proc | own)
    cat "$proc"/[0-9]*/stat | awk -v group="$group" '
      { sub(/^.*\) /, ""); if ($3 == group && $1 != "Z" && $1 != "X") lives = 1 }
      END { exit !lives }'
    ;;
  *) to_group 0 "$group" ;;
  esac
}

deliver() {
  identify
  target=$group
  if [ "$tty" = yes ] && [ -n "$started" ]; then
    # INT and QUIT go where the terminal would send them: to the foreground
    # group, field 8 of stat, which an interactive shell changes with each job.
    case $signal in INT | QUIT)
      set -- ${stat##*")"}
      [ "${6:-0}" -gt 1 ] && target=$6
      ;;
    esac
  fi
  leader=yes
  [ -n "$started" ] && [ "$state" != Z ] || leader=no
  # A group may outlive its leader; it keeps the number, so it is still ours.
  if [ "$target" -gt 1 ] && { [ $leader = yes ] || group_lives; }; then
    to_group "$signal" "$target" && { say sent; return; }
    sudo_allowed && as_root kill -s "$signal" -- "-$target" && { say sent; return; }
    say refused
  elif [ "$pid" -gt 1 ] && [ $leader = yes ]; then
    kill -s "$signal" "$pid" && { say sent; return; }
    sudo_allowed && as_root kill -s "$signal" "$pid" && { say sent; return; }
    say refused
  else
    say gone
  fi
} </dev/null 2>/dev/null
deliver
