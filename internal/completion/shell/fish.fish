# The integration of fish. What it sets is _telexec_*, a key that nobody types and the end of
# fish_prompt, and it forks nothing.
set -g _telexec_k "p=$fish_pid;k=@NONCE@@BEL@"
set -g _telexec_fresh 1
set -q _telexec_n; or set -g _telexec_n 0

function _telexec_preexec --on-event fish_preexec
    set -l line (string escape --style=url -- $argv[1])
    if test (string length -- "$line") -gt 6000
        set line
    end
    printf "@ESC@]133;C;line=%s;%s" "$line" $_telexec_k
end

# Not of the line that has read this: a shell introduces itself first.
function _telexec_postexec --on-event fish_postexec
    set -l code $status
    if test $_telexec_fresh = 0
        printf "@ESC@]133;D;%s;%s" $code $_telexec_k
    end
end

# The prompt may be defined anew at any time, also as one that calls the one before.
function _telexec_wrap
    if not functions fish_prompt | string match -q "*_telexec_end $_telexec_n*"
        set -g _telexec_n (math $_telexec_n + 1)
        functions -q fish_prompt; or function fish_prompt; end
        functions -c fish_prompt _telexec_prompt_$_telexec_n
        eval "function fish_prompt; _telexec_prompt_$_telexec_n; _telexec_end $_telexec_n; end"
    end
end

function _telexec_end
    if test $argv[1] = $_telexec_n
        printf "@ESC@]133;B;%s" $_telexec_k
    end
end

function _telexec_begin --on-event fish_prompt
    if test $_telexec_fresh = 1
        set -g _telexec_fresh 0
        printf "@ESC@]133;P;pid=%s;shell=fish;level=%s;starts=1;%s" $fish_pid "$SHLVL" "k=@NONCE@@BEL@"
    end
    _telexec_wrap
    printf "@ESC@]133;A;%s" $_telexec_k
end

# What Type ends with: fish keeps a line that it cannot parse on the prompt, but this one has
# to end with a code.
function _telexec_run
    if not commandline --is-valid
        commandline -r -- "eval "(string escape -- (commandline | string collect))
    end
    commandline -f execute
end
bind \x1e _telexec_run
bind -M insert \x1e _telexec_run
bind -M default \x1e _telexec_run
true
