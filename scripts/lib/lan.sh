# shellcheck shell=bash
# A LAN with moorage on it, inside a world. Sourced; needs say.sh.

# start_lan [LINE…]: engine, lab, daemon, and Docker's network `lan` on the lab's parent interface. The lines are
# settings of the host beyond those that setup makes.
start_lan() {
    local lab
    world start dockerd
    lab=$(moorage scripthacker start-lab --no-ping --format json)
    LAB_PARENT=$(lab_parent "$lab") || fail "start-lab did not say what the parent interface is: $lab"
    export LAB_PARENT
    moorage setup --yes --parent "$LAB_PARENT"
    world stop daemon
    # Below the world's own control group, so that it can be found and removed with it.
    printf '%s\n' "cgroup = \"$MOORAGE_WORLD_CGROUP/moorage\"" "$@" >>/etc/moorage/config.toml
    world start daemon
}

# lab_parent JSON: the parent interface in what `start-lab --format json` printed.
lab_parent() {
    local parent
    parent=$(sed -n 's/.*"parent": *"\([^"]*\)".*/\1/p' <<<"$1") && [ -n "$parent" ] && echo "$parent"
}
