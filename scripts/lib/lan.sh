# shellcheck shell=bash
# A LAN with moorage on it, inside a world. Sourced; needs say.sh.

# start_lan: engine, lab, daemon, and Docker's network `lan` on the lab's parent interface.
start_lan() {
    local lab
    world start dockerd
    lab=$(moorage scripthacker start-lab --no-ping --format json)
    LAB_PARENT=$(lab_parent "$lab") || fail "start-lab did not say what the parent interface is: $lab"
    export LAB_PARENT
    # The hosts's own settings for tests: who administers it, and what people may map.
    mkdir -p /srv/reference
    echo reference >/srv/reference/file
    moorage setup --yes --parent "$LAB_PARENT"
}

# lab_parent JSON: the parent interface in what `start-lab --format json` printed.
lab_parent() {
    local parent
    parent=$(sed -n 's/.*"parent": *"\([^"]*\)".*/\1/p' <<<"$1") && [ -n "$parent" ] && echo "$parent"
}
