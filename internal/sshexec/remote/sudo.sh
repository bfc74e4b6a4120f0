# sudo.sh: what runs behind sudo, as the other user, and becomes the command. One
# line, as attached.sh is, that a shell reads from standard input behind the
# password, and with become.sh behind it. Values at the line of the at sign:
# telexec_key (empty: nobody listens for the beginning), telexec_dir and those of
# become.sh; the exports stand there too.
telexec_shell=${SHELL:-/bin/sh};
telexec_version="$RANDOM$BASH_VERSION$KSH_VERSION$SH_VERSION$ZSH_VERSION$YASH_VERSION$POSH_VERSION";
set -- "${IFS#??}";
set -- "${1%"${1#?}"}";
@
[ -z "$telexec_dir" ] || cd "$telexec_dir" 2>/dev/null || {
telexec_why=missing;
[ -d "$telexec_dir" ] && telexec_why=denied;
echo "telexec:$telexec_key: directory $telexec_why" >&2;
exit 1;
};
[ -z "$telexec_key" ] || echo "telexec:$telexec_key: begun" >&2 || exit 1;
