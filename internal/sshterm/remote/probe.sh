# probe.sh: what is there for a terminal? POSIX sh, behind places.sh. Set above:
# nonce; want, the shell that was asked for (empty: the login shell). Each answer is a
# line "WORD VALUE".

say() { printf 'telexec:%s: %s\n' "$nonce" "$*"; }

# told PROGRAM… prints the beginning of what it says; it may hang, or talk without end.
told() {
  {
    $apart "$@" &
    one=$!
    (
      trap 'kill "$nap"; exit' TERM
      sleep 3 &
      nap=$!
      wait "$nap"
      kill -s KILL "-$one" || kill -s KILL -- "-$one" || kill -s KILL "$one"
    ) >/dev/null &
    guard=$!
    wait "$one"
    code=$?
    kill "$guard"
    [ $code -eq 0 ] || echo failed
  } | dd bs=300 count=1
}
# So it has a group of its own.
apart=
! command -v setsid >/dev/null || apart=setsid

# find_shell tells where the shell is, and what it really is: sh is many shells.
find_shell() {
  case $want in
  "") path=${SHELL:-/bin/sh} ;;
  */*) path=$want ;;
  *) path=$(command -v "$want") ;;
  esac
  case $path in /*) ;; *) say noshell; return ;; esac
  [ -f "$path" ] && [ -x "$path" ] || { say noshell; return; }
  real=$(readlink -f "$path")
  kind=${real:-$path} kind=${kind##*/}
  case $kind in
  bash | rbash) kind=bash ;;
  zsh | zsh[0-9]* | zsh-[0-9]*) kind=zsh ;;
  fish) ;;
  dash) ;;
  busybox | busybox.* | ash) kind=ash ;;
  yash) ;;
  csh | tcsh | bsd-csh) kind=csh ;;
  *)
    # What is not told by its name tells by its variables, but for a program that was
    # asked for and is no shell as far as anybody knows.
    asks || { say shell sh "$path"; return; }
    kind=$(told "$path" -c 'echo "${BASH_VERSION:+bash}${ZSH_VERSION:+zsh}${YASH_VERSION:+yash}:$KSH_VERSION:${kind:-}"' </dev/null)
    case $kind in
    bash:* | zsh:* | yash:*) kind=${kind%%:*} ;;
    *MIRBSD* | *LEGACY*) kind=mksh ;;
    :?*:) kind=ksh ;;
    *) kind=sh ;;
    esac
    ;;
  esac
  say shell "$kind" "$path"
}

# asks reports whether what was asked for may be run to tell what it is: the login shell,
# or one that everybody may choose. The service has the same list.
asks() {
  base=${want##*/}
  case ${want%"$base"} in "" | /bin/ | /usr/bin/ | /usr/local/bin/) ;; *) return 1 ;; esac
  case $base in
  "" | bash | rbash | zsh | fish | dash | ash | busybox | sh | ksh | ksh93 | mksh | lksh | oksh | loksh | pdksh) ;;
  yash | csh | tcsh | bsd-csh) ;;
  *) return 1 ;;
  esac
}

# leaving tells where the host ends whatever a login has started when it leaves.
leaving() {
  [ "$(id -u)" != 0 ] || return
  case $(told loginctl show-user -p KillUserProcesses) in *=yes) ;; *) return ;; esac
  case " $(told loginctl show-user -p KillExcludeUsers) " in *[=\ ]"$(id -un)"\ *) return ;; esac
  case $(told loginctl show-user "$(id -un)" -p Linger) in *=yes) return ;; esac
  say leaving ends
}

probe() {
  umask 077
  first=
  find_dirs
  find_shell
  version=$(told tmux -V)
  case $version in "" | *failed) ;; *) say tmux "$version" ;; esac
  command -v dtach >/dev/null && say dtach yes
  case $(told screen --version) in Screen\ version\ [4-9]*) say screen yes ;; esac
  for tool in awk stty; do
    command -v $tool >/dev/null && say has $tool
  done
  { read -r boot </proc/sys/kernel/random/boot_id; } && say boot "$boot"
  leaving
  say probed
} 2>/dev/null </dev/null
