#!/usr/bin/env bash
# Sees to what the tests need of the system: a real OpenSSH server and client, curl, node, and a C compiler for the race detector.
# As root on Debian it installs what is missing; otherwise it says in one line what is missing and how to get it. What only
# some tests want (other SSH servers, other login shells, sudo, a browser) it tries to get in the same way; those tests skip, and say so,
# where it cannot be had. Where CI=true most of them fail instead.
# The tests start their own servers on loopback; the package's own sshd is not started.
set -euo pipefail

missing=() packages=()
need() { # program package
  present "$1" || { missing+=("$1"); packages+=("$2"); }
}
wanted=() extra=()
want() { # program package
  present "$1" || { wanted+=("$1"); extra+=("$2"); }
}
present() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }

need sshd openssh-server
need ssh openssh-client
need ssh-keygen openssh-client
need ssh-agent openssh-client
need curl curl
need ps procps
need gcc gcc
# The machines of sshtest are made with these two of util-linux, which every Debian has.
need unshare util-linux
need nsenter util-linux
# What is in TypeScript.
need node nodejs
need npm npm
if present node && ! node -e 'process.exit(process.versions.node.split(".")[0] >= 20 ? 0 : 1)'; then
  echo "node is $(node --version), and must be 20 or newer: https://nodejs.org" >&2
  exit 1
fi

want dropbear dropbear-bin
want busybox busybox-static
want sudo sudo
want zsh zsh
want mksh mksh
want ksh93 ksh93u+m
want yash yash
want fish fish
want tcsh tcsh
want dash dash
# What keeps the shell of a session while its connection is lost.
want tmux tmux
want screen screen
want dtach dtach
# For the tests of the web UI.
want chromium chromium

able=
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then able=yes; fi
if [ ${#missing[@]} -gt 0 ] && [ -z "$able" ]; then
  echo "missing for the tests: ${missing[*]}; get them with: sudo apt-get install ${packages[*]}" >&2
  exit 1
fi
if [ ${#wanted[@]} -gt 0 ] && [ -z "$able" ]; then
  echo "tests will be skipped for want of: ${wanted[*]}; get them with: sudo apt-get install ${extra[*]}" >&2
  exit 0
fi
[ $((${#missing[@]} + ${#wanted[@]})) -gt 0 ] || exit 0

log=$(mktemp)
policy=/usr/sbin/policy-rc.d # while it exits 101, no service is started by its package
mine=
tidy() { rm -f "$log"; [ -z "$mine" ] || rm -f "$policy"; }
trap tidy EXIT
if [ ! -e "$policy" ]; then
  mine=yes
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
install() { apt-get -qq -y --no-install-recommends install "$@" >"$log" 2>&1 </dev/null; }

echo "installing what the tests need: ${packages[*]} ${extra[*]}"
apt-get -qq update >"$log" 2>&1 </dev/null || cat "$log" >&2
if [ ${#packages[@]} -gt 0 ] && ! install "${packages[@]}"; then
  cat "$log" >&2
  echo "missing for the tests: ${missing[*]}; apt-get could not install: ${packages[*]}" >&2
  exit 1
fi
if [ ${#extra[@]} -gt 0 ] && ! install "${extra[@]}"; then
  # One of them that cannot be had keeps all of them out: one by one, then.
  for package in "${extra[@]}"; do
    install "$package" || echo "tests will be skipped: apt-get could not install $package" >&2
  done
fi
