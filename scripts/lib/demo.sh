# shellcheck shell=bash
# The demo project's repository and /opt archive, made on this machine so that nothing has to be fetched. Sourced.

# make_demo DIRECTORY: writes demo.bundle (branches main and 1.0), opt.tar.zst and patch-p1.tar.zst there, the same
# bytes each time.
make_demo() {
    local directory=$1 work made
    work=$(mktemp -d)
    mkdir -p "$directory"
    demo_opt "$work/opt"
    demo_patch "$work/patch-p1"
    demo_repository "$work/repository"
    for made in opt patch-p1; do
        tar --create --zstd --sort=name --mtime=@1577836800 --owner=0 --group=0 --numeric-owner \
            --directory "$work/$made" --file "$work/$made.tar.zst" .
    done
    git -C "$work/repository" bundle create --quiet "$work/demo.bundle" HEAD main 1.0
    # Under another name first: a run that is interrupted leaves no half archive behind.
    for made in opt.tar.zst patch-p1.tar.zst demo.bundle; do
        cmp -s "$work/$made" "$directory/$made" && continue
        install -m 644 -T "$work/$made" "$directory/.$made.new"
        mv "$directory/.$made.new" "$directory/$made"
    done
    rm -rf "$work"
}

# What the product would have in /opt.
demo_opt() {
    mkdir -p "$1/demo/bin" "$1/demo/etc" "$1/demo/share"
    cat >"$1/demo/bin/hello" <<'SCRIPT'
#!/bin/sh
echo "hello from $(cat /opt/demo/share/version) on $(hostname)"
SCRIPT
    chmod 755 "$1/demo/bin/hello"
    echo 'demo 1.0' >"$1/demo/share/version"
    printf '# settings of the demo product\ngreeting = hello\n' >"$1/demo/etc/demo.conf"
    ln -s share/version "$1/demo/VERSION"
    ln "$1/demo/share/version" "$1/demo/share/version.hard"
    # Numbers that zstd cannot make small, so that the archive takes a moment as a real one does.
    awk 'BEGIN { srand(1); for (i = 0; i < 400000; i++) printf "%d\n", rand() * 1000000000 }' >"$1/demo/share/data"
}

# What --patch p1 stacks on it.
demo_patch() {
    mkdir -p "$1/demo/share"
    echo 'demo 1.0 p1' >"$1/demo/share/version"
    echo 'what p1 mends' >"$1/demo/share/p1"
}

# The product's source: `setup` is what the project's file names as its set-up step.
demo_repository() {
    local repository=$1
    mkdir -p "$repository"
    cat >"$repository/setup" <<'SCRIPT'
#!/bin/sh
# Run once inside a new container, as the person.
set -eu
echo "setting up $(git -C /opt/src/demo rev-parse --abbrev-ref HEAD) for $(id -un)"
/opt/demo/bin/hello
echo done >"$HOME/demo-is-set-up"
SCRIPT
    chmod 755 "$repository/setup"
    echo 'The demo product of moorage.' >"$repository/README"
    as_nobody=(env GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'
        GIT_AUTHOR_NAME=moorage GIT_AUTHOR_EMAIL=moorage@localhost GIT_COMMITTER_NAME=moorage
        GIT_COMMITTER_EMAIL=moorage@localhost GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null)
    "${as_nobody[@]}" git -C "$repository" init --quiet --initial-branch=main
    "${as_nobody[@]}" git -C "$repository" add .
    "${as_nobody[@]}" git -C "$repository" commit --quiet --message 'The demo product'
    "${as_nobody[@]}" git -C "$repository" branch 1.0
    echo 'This is the line under development.' >>"$repository/README"
    "${as_nobody[@]}" git -C "$repository" commit --quiet --all --message 'Development goes on'
}
