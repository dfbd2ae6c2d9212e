# shellcheck shell=bash
# How the scripts talk. Sourced.

# A step begins: one line that says what is done.
step() { printf '\n\033[1m==> %s\033[0m\n' "$*" | plain >&2; }

# Something worth knowing inside a step.
say() { printf '    %s\n' "$*" >&2; }

# The end: what failed, and on the following lines what to do.
fail() {
    printf '\n%s: %s\n' "${0##*/}" "$1" >&2
    shift
    [ $# -eq 0 ] || printf '  what to do: %s\n' "$@" >&2
    exit 1
}

# Takes the bold away where nobody sees it.
plain() {
    if [ -t 2 ] && [ -z "${NO_COLOR:-}" ]; then cat; else sed 's/\x1b\[[0-9;]*m//g'; fi
}

# seconds COMMAND…: runs it and says how long it took.
seconds() {
    local begin=$SECONDS
    "$@"
    say "took $((SECONDS - begin)) s"
}

# until_answers SECONDS WHAT COMMAND…: asks again and again until the command succeeds. Only for sockets of other
# programs, whose opening the kernel announces to nobody but them.
until_answers() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            say "$what did not answer in time"
            return 1
        fi
        sleep 0.05
    done
}
