# become.sh: the last lines of attached.sh and of command.sh: takes the place of
# the shell that runs it. Each line ends so that all can be joined into one.
#
# A line of plain words needs no second shell to read it: its program takes our
# place, as it would take that shell's, and a builtin runs here. Not where this
# is another shell than that would be, and only in dash and its kin: bash and
# BusyBox count shells in SHLVL, bash takes functions from the environment, others
# have builtins without end. What is no program is left to the shell, which says
# so in its own words.
[ "$telexec_reader" = sh ] || [ "$telexec_shell" = /bin/sh ] || telexec_short=;
[ -z "$telexec_version" ] || telexec_short=;
case $telexec_short in
"") ;;
-*) eval "$telexec_line"; exit;;
*/*) [ -f "$telexec_short" ] && [ -x "$telexec_short" ] && eval "exec $telexec_line";;
*) command -v "$telexec_short" >/dev/null 2>&1 && eval "exec $telexec_line";;
esac;
[ "$telexec_login" = yes ] || exec /bin/sh -c "$telexec_line";
# csh takes -l only when it is alone.
case $telexec_shell in *csh) exec "$telexec_shell" -c "$telexec_line";; esac;
exec "$telexec_shell" -l -c "$telexec_line";
