#!/usr/bin/env bash
# Sees to what the tests need of the system: a real OpenSSH server and client, curl, and a C compiler for the race detector.
# As root on Debian it installs what is missing; otherwise it says in one line what is missing and how to get it.
# The tests start their own servers on loopback; the package's own sshd is not started.
set -euo pipefail

missing=() packages=()
need() { # program package
  command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || { missing+=("$1"); packages+=("$2"); }
}
need sshd openssh-server
need ssh openssh-client
need ssh-keygen openssh-client
need ssh-agent openssh-client
need curl curl
need ps procps
need gcc gcc
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "missing for the tests: ${missing[*]}; get them with: sudo apt-get install ${packages[*]}" >&2
  exit 1
fi

echo "installing what the tests need: ${packages[*]}"
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
{ apt-get -qq update && apt-get -qq -y --no-install-recommends install "${packages[@]}"; } >"$log" 2>&1 </dev/null || {
  cat "$log" >&2
  echo "missing for the tests: ${missing[*]}; apt-get could not install: ${packages[*]}" >&2
  exit 1
}
