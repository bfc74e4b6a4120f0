# input.sh: takes standard input for a durable run, as its argument of sh -c; the
# bytes come on standard input. One line, as attached.sh is. Set at the line of the
# at sign, in double quotes: nonce, dir, id, fence, from, size, eof.
#
# A piece is there whole or not at all, under a name with its place: sent again, it
# is taken once.
umask 077;
@
say() { echo "telexec:$nonce: $*"; };
cd "$dir" 2>/dev/null || { say away; exit; };
[ -e "$id.st" ] || { say gone; exit; };
read -r f rest <"$id.f";
[ "${f:-0}" -le "$fence" ] || { say superseded; exit; };
read -r what rest <"$id.st";
case $what in claim|run) ;; *) say ended; exit;; esac;
read -r came rest <"$id.n";
[ ! -f "$id.in.eof" ] || [ "$came" -gt "$from" ] || [ "$size$eof" = 0yes ] || { say closed; exit; };
if [ "$size" -gt 0 ] && [ "$came" -eq "$from" ]; then
# What the command has not read yet is bounded.
set -- "$id.in."[0-9]*;
[ $# -lt 16 ] || { say busy $came; exit; };
cat >"$id.in_$$" 2>/dev/null || { rm -f "$id.in_$$"; say nospace $came; exit; };
[ "$(wc -c <"$id.in_$$")" -eq "$size" ] || { rm -f "$id.in_$$"; say short $came; exit; };
# It may have been long on its way, and have come by another one meanwhile.
read -r f rest <"$id.f";
read -r came rest <"$id.n";
[ "${f:-0}" -le "$fence" ] || { rm -f "$id.in_$$"; say superseded; exit; };
[ "$came" -eq "$from" ] || { rm -f "$id.in_$$"; say took $came; exit; };
came=$((from + size));
mv "$id.in_$$" "$id.in.$from.$came";
printf "%-120s%s" "$came" "$came" 1<>"$id.n";
fi;
[ "$eof" = no ] || [ "$came" -lt $((from + size)) ] || true >"$id.in.eof";
[ ! -p "$id.bell" ] || echo more 1<>"$id.bell";
say took $came;
