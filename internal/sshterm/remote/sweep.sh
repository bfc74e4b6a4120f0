# sweep.sh: removes the files of a session whose shell has ended. POSIX sh. Set above:
# nonce, dir.
sweep() {
  cd / && rm -rf "$dir" && printf 'telexec:%s: swept\n' "$nonce"
} 2>/dev/null </dev/null
sweep
