# upload.sh: the standard input that a durable run is to have from its start, on
# standard input. One line, as input.sh is; set: nonce, dir, id, size.
umask 077;
@
say() { echo "telexec:$nonce: $*"; };
cd "$dir" 2>/dev/null || { say nodir; exit; };
cat >"$id.in_$$" 2>/dev/null && [ "$(wc -c <"$id.in_$$")" -eq "$size" ] && mv "$id.in_$$" "$id.in" && { say took; exit; };
rm -f "$id.in_$$";
say nospace;
