# shellcheck shell=bash
# Distribution packages, only those that are missing. Sourced; needs say.sh.

# missing_packages PACKAGE…: those that are not installed, one a line.
missing_packages() {
    local package
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
    done
}

# install_packages PACKAGE…: installs what is missing, and asks the mirror only then.
# A service that the packages would start stays down where no systemd looks after it.
install_packages() {
    local -a missing
    mapfile -t missing < <(missing_packages "$@")
    if [ ${#missing[@]} -eq 0 ]; then
        say "nothing to install"
        return
    fi
    command -v apt-get >/dev/null ||
        fail "this machine has no apt-get, and these are missing: ${missing[*]}" \
            "install them with the distribution's own tool, then run this again"
    [ "$(id -u)" = 0 ] || fail "only root can install ${missing[*]}" "run this as root"
    say "installing ${missing[*]}"
    local policy=/usr/sbin/policy-rc.d ours=
    if [ ! -e "$policy" ] && [ ! -d /run/systemd/system ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        ours=yes
    fi
    local status=0
    DEBIAN_FRONTEND=noninteractive apt-get -qq update </dev/null &&
        DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 \
            install "${missing[@]}" </dev/null >&2 || status=$?
    [ -z "$ours" ] || rm -f "$policy"
    [ "$status" = 0 ] || fail "apt-get could not install ${missing[*]}" \
        "see its words above; the mirror must be reachable"
}

# The packages of Docker Engine here: newer releases have its command line in a package of its own, which docker.io
# only recommends. A machine that has never asked the mirror knows of neither.
engine_packages() {
    if command -v dockerd >/dev/null && command -v docker >/dev/null; then return; fi
    echo docker.io
    command -v apt-get >/dev/null || return 0
    apt-cache show docker.io >/dev/null 2>&1 || apt-get -qq update </dev/null >&2 ||
        say "apt-get could not ask the mirror for its packages"
    ! apt-cache show docker-cli >/dev/null 2>&1 || echo docker-cli
}
