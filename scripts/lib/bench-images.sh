# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154,SC2317  # sourced by world-bench, whose variables these are; cases are called by name
# The cases of the bench that are about images and what is published.

packages=$kept/packages
author=$MOORAGE_WORLD/tmp/author

forget_author() {
    docker images --filter 'reference=moorage/bench-*' --format '{{.Repository}}:{{.Tag}}' |
        xargs -r docker rmi --force >>"$log" 2>&1
    rm -rf "$author"
}

# A site with the base `bench-1`, of the packages that bench-packages has put there, and IMAGES dev images on it.
author_site() {
    local images=$1 number
    # What a run that failed has left.
    forget_author
    mkdir -p "$author/common/repos/bench-1" "$author/containerauthor/bases"
    cp "$packages/local.gpg" "$author/common/repos/bench-1/"
    printf 'Types: deb\nURIs: copy://%s\nSuites: local\nComponents: main\n' "$packages" \
        >"$author/common/repos/bench-1/local.sources"
    printf 'suite = "local"\nkeyring = "local.gpg"\nepoch = 1700000000\n' >"$author/containerauthor/bases/bench-1.toml"
    for ((number = 1; number <= images; number++)); do
        mkdir -p "$author/containerauthor/images/bench-$number-on-1"
        printf 'base = "bench-1"\n' >"$author/containerauthor/images/bench-$number-on-1/image.toml"
        # shellcheck disable=SC1083
        printf 'FROM {{ base }}\nRUN echo %s >/number\n' "$number" \
            >"$author/containerauthor/images/bench-$number-on-1/Dockerfile.j2"
    done
}

# A minimal Debian has apt, which the priorities of this repository do not say.
bare_mmdebstrap() {
    SOURCE_DATE_EPOCH=1700000000 mmdebstrap --quiet --variant=minbase --include=apt --format=tar \
        --keyring="$packages/local.gpg" local "$MOORAGE_WORLD/tmp/bare.tar" "$author/common/repos/bench-1/local.sources"
}

# same_packages: both sides have made the same, package for package.
same_packages() {
    local container
    tar -xOf "$MOORAGE_WORLD/tmp/bare.tar" ./var/lib/dpkg/status | grep -E '^(Package|Version):' >"$MOORAGE_WORLD/tmp/by-hand"
    container=$(docker create --network none moorage/bench-1)
    docker cp "$container:/var/lib/dpkg/status" - | tar -xO | grep -E '^(Package|Version):' >"$MOORAGE_WORLD/tmp/ours"
    docker rm "$container" >>"$log"
    diff "$MOORAGE_WORLD/tmp/by-hand" "$MOORAGE_WORLD/tmp/ours" >&2 || fail "the two sides do not make the same packages"
}

base_build() {
    local round rounds=${MOORAGE_BENCH_ROUNDS:-3} ours
    ratios=()
    step "base-build: a base image in the engine, against a bare mmdebstrap of the same packages"
    author_site 0
    for ((round = 1; round <= rounds; round++)); do
        docker rmi --force moorage/bench-1 >>"$log" 2>&1 || true
        settle
        timed moorage make-base-image bench-1 --site "$author" --progress plain
        ours=$took
        settle
        timed bare_mmdebstrap
        same_packages
        rm -f "$MOORAGE_WORLD/tmp/bare.tar"
        sides base-build "$round" "$ours" "$took"
    done
    forget_author
    verdict base-build 1.15 "$(median "${ratios[@]}")"
}

# rename_worlds FROM TO: the world's own images are hidden from moorage, whose repositories nobody reaches from here.
rename_worlds() {
    local name
    for name in demo debian-12; do
        docker image inspect "$1/$name" >>"$log" 2>&1 || continue
        docker tag "$1/$name" "$2/$name"
        docker rmi "$1/$name" >>"$log"
    done
}

nothing_stale() {
    local said
    said=$(moorage rebuild-images --site "$author" 2>&1)
    [ -z "${said/no image is stale/}" ] || fail "something was stale: $said"
}

rebuild_nothing() {
    local round rounds=${MOORAGE_BENCH_ROUNDS:-7} ours number
    ratios=()
    step "rebuild-nothing: 50 images, none stale, against docker images"
    author_site 49
    rename_worlds moorage kept
    for ((number = 1; number <= 49; number++)); do
        moorage make-dev-image "bench-$number-on-1" --site "$author" --progress plain >>"$log" 2>&1
    done
    # The first look learns which metadata the packages are of.
    moorage list-images --site "$author" >>"$log"
    for ((round = 1; round <= rounds; round++)); do
        timed nothing_stale
        ours=$took
        timed docker images
        sides rebuild-nothing "$round" "$ours" "$took"
    done
    forget_author
    rename_worlds kept moorage
    verdict rebuild-nothing 3.00 "$(median "${ratios[@]}")"
}

# sent COMMAND…: leaves in $sent the bytes that went over the loopback interface meanwhile; only the registry is there.
sent() {
    local before
    before=$(cat /sys/class/net/lo/statistics/tx_bytes)
    "$@" >>"$log" 2>&1
    sent=$(($(cat /sys/class/net/lo/statistics/tx_bytes) - before))
}

# share CASE FIRST AGAIN GOAL
share() {
    echo "$1: $2 bytes the first time, $3 again"
    awk -v name="$1" -v first="$2" -v again="$3" -v goal="$4" 'BEGIN {
        ratio = again / first
        printf "%s: ratio %.5f goal %s %s\n", name, ratio, goal, ratio <= goal ? "ok" : "short"
        exit !(ratio <= goal)
    }' || status=1
}

publish_again() {
    local first container tree=$MOORAGE_WORLD/tmp/again number to=$registry/again/image:1 opt=oci://$registry/again/opt:1
    step "publish-again: bytes sent for an unchanged image, and for an /opt tree with 1 % of its files changed"
    # One layer that the registry has not, whatever other cases have put there.
    docker pull --quiet "$image" >>"$log"
    container=$(docker create "$image")
    docker export "$container" | docker import - "$to" >>"$log"
    docker rm "$container" >>"$log"
    sent moorage publish-image "$to"
    first=$sent
    sent moorage publish-image "$to"
    share publish-again-image "$first" "$sent" 0.001
    mkdir -p "$tree"
    zstd -q -d <"$kept/opt.tar.zst" | tar --extract --directory "$tree"
    sent moorage publish-opt "$tree" "$opt"
    first=$sent
    # 200 of the 20,000 files, one in each directory: as many bytes as before, all of them others.
    for number in {001..200}; do
        noise "again $number" 53688 >"$tree/product/$number/file-aab"
    done
    sent moorage publish-opt "$tree" "$opt"
    share publish-again-opt "$first" "$sent" 0.1
    sent moorage publish-opt "$tree" "$opt"
    share publish-again-opt-unchanged "$first" "$sent" 0.001
    rm -rf "$tree"
    docker rmi --force "$to" >>"$log" 2>&1
    forget_image
}
