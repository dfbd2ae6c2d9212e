# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154,SC2317  # sourced by world-bench, whose variables these are; cases are called by name
# The cases of the bench that are about the /opt store itself: getting archives into it, and what it costs to use.

# The store's own disk, where it is not the world's: an image file with the filesystem that MOORAGE_BENCH_FS names.
store_image=$MOORAGE_WORLD/storage/bench-store.img

mount_store() {
    rm -f "$store_image"
    [ -n "${MOORAGE_BENCH_FS:-}" ] || return 0
    step "The store on $MOORAGE_BENCH_FS, in a loop image"
    truncate -s 64G "$store_image"
    case $MOORAGE_BENCH_FS in
    ext4) mkfs.ext4 -q -F "$store_image" ;;
    xfs) mkfs.xfs -q "$store_image" ;;
    btrfs) mkfs.btrfs -q "$store_image" ;;
    *) fail "MOORAGE_BENCH_FS is ext4, xfs or btrfs, not $MOORAGE_BENCH_FS" ;;
    esac
    mkdir -p /opt/containers
    # The device goes with the world's mounts, however the world ends.
    mount -o loop "$store_image" /opt/containers
}

unmount_store() {
    [ -n "${MOORAGE_BENCH_FS:-}" ] || return 0
    umount --recursive --lazy /opt/containers
    rm -f "$store_image"
}

# fetched NAME: makes a container, and leaves in $took the microseconds from the begin of the fetch of its archive to its end,
# as the command tells of them.
fetched() {
    local line begin='' end=''
    while IFS= read -r line; do
        case $line in
        *'"event":"begin"'*'"step":"opt"'*) [ -n "$begin" ] || begin=$(now) ;;
        *'"event":"end"'*'"step":"opt"'*) [ -n "$end" ] || end=$(now) ;;
        esac
        printf '%s\n' "$line" >>"$log"
    done < <(moorage make-dev-container bench main --name "$1" --site "$site" --yes --progress json --format json 2>&1 >/dev/null)
    [ -n "$end" ] || fail "make-dev-container did not tell of its fetch" "read $log"
    took=$((end - begin))
}

# Removes what no container needs: each round has an archive of its own.
forget_archives() { moorage prune-containers --store --yes >>"$log" 2>&1; }

curl_and_tar() {
    mkdir -p "$by_hand"
    curl -fsS "$url" | zstd -q -d | tar --extract --directory "$by_hand"
}

fetch_extract() {
    local round rounds=${MOORAGE_BENCH_ROUNDS:-5} ours
    ratios=()
    step "fetch-extract: an archive of 1 GiB in 20,000 files into the store, against curl | zstd -d | tar x"
    # The image has to be here before.
    fresh_archive fetch0
    make first >>"$log" 2>&1
    remove first
    for ((round = 1; round <= rounds; round++)); do
        forget_archives
        fresh_archive "fetch$round"
        fetched fetch
        ours=$took
        remove fetch
        forget_archives
        settle
        timed curl_and_tar
        rm -rf "$by_hand"
        sides fetch-extract "$round" "$ours" "$took"
    done
    verdict fetch-extract 1.00 "$(median "${ratios[@]}")"
}

fetch_resume() {
    local size sent line done_bytes
    step "fetch-resume: MiB that are read twice when the daemon is killed in the middle of a fetch"
    fresh_archive resume0
    make first >>"$log" 2>&1
    remove first
    forget_archives
    fresh_archive resume
    size=$(stat -c %s "$MOORAGE_WORLD/tmp/www/resume.tar.zst")
    sent=$(cat /sys/class/net/lo/statistics/tx_bytes)
    while IFS= read -r line; do
        if [[ $line =~ \"event\":\"progress\".*\"step\":\"opt\".*\"done\":([0-9]+) ]]; then
            done_bytes=${BASH_REMATCH[1]}
            [ "$done_bytes" -lt $((size / 2)) ] || world kill9 daemon
        fi
        printf '%s\n' "$line" >>"$log"
    done < <(moorage make-dev-container bench main --name resume --site "$site" --yes --progress json --format json 2>&1 >/dev/null || true)
    [ "${done_bytes:-0}" -ge $((size / 2)) ] || fail "the fetch was not killed in the middle" "read $log"
    world start daemon
    make resume >>"$log" 2>&1
    sent=$(($(cat /sys/class/net/lo/statistics/tx_bytes) - sent))
    remove resume
    printf 'fetch-resume: an archive of %d bytes, %d over the network with all headers\n' "$size" "$sent"
    verdict fetch-resume 8 "$(awk -v sent="$sent" -v size="$size" 'BEGIN { printf "%.2f", (sent - size) / 1048576 }')"
}

# one_byte FILE BLOCK: writes one byte into it, to the disk.
one_byte() { printf x | dd of="$1" bs=4096 seek="$2" conv=notrunc,fsync status=none; }

clone_dirty() {
    local round rounds=${MOORAGE_BENCH_ROUNDS:-3} ours fs
    ratios=()
    fs=$(stat -f -c %T /opt/containers)
    step "clone-dirty: one byte into an 8 GiB file of a clone, against one into a plain file, on $fs"
    fresh_archive dirty
    sed -i '/^opt = /d' "$site/dockeruser/projects/bench.toml"
    make dirty >>"$log" 2>&1
    noise dirty $((8 << 30)) >/opt/containers/dirty-root/opt/large
    # Its blocks are its own.
    cp --reflink=never --sparse=never /opt/containers/dirty-root/opt/large /opt/containers/plain
    settle
    moorage clone-container dirty --count "$rounds" --start no --yes >>"$log" 2>&1
    for ((round = 1; round <= rounds; round++)); do
        settle
        timed one_byte "/opt/containers/dirty-$round-root/opt/large" "$round"
        ours=$took
        settle
        timed one_byte /opt/containers/plain "$round"
        sides clone-dirty "$round" "$ours" "$took"
    done
    moorage remove-container --clones-of dirty --yes >>"$log" 2>&1
    remove dirty
    rm -f /opt/containers/plain
    case $fs in
    xfs | btrfs) verdict "clone-dirty-$fs" 1.50 "$(median "${ratios[@]}")" ;;
    *) printf 'clone-dirty-%s: ratio %.2f, a first write copies the whole file here\n' "$fs" "$(median "${ratios[@]}")" ;;
    esac
}

# shellcheck disable=SC2016  # the shell that is given it expands it
# What is done in a directory, in microseconds: `write` 1 GiB, `read` it, 300 small writes each to the disk.
io_script='
cd "$1"
begin=$(date +%s%N)
case $2 in
write) dd if=/dev/zero of=bench-io bs=1M count=1024 status=none ;;
read) dd if=bench-io of=/dev/null bs=1M status=none ;;
fsync) dd if=/dev/zero of=bench-sync bs=4k count=300 oflag=dsync status=none ;;
esac
echo $((($(date +%s%N) - begin) / 1000))'

# as_new DIRECTORY WHAT: nothing is cached, no earlier file has to be taken apart (which takes the longer the more pieces it lies
# in), and as much memory as a run takes was used just now: what the machine below has taken back comes several times more slowly.
as_new() {
    [ "$2" != write ] || rm -f "$1/bench-io"
    settle
    echo 3 >/proc/sys/vm/drop_caches
    dd if=/dev/zero of=/dev/shm/bench-memory bs=1M count=1280 status=none
    rm /dev/shm/bench-memory
}

# io_here WHAT, io_inside WHAT: in the host's directory, and in the container's /opt.
io_here() { as_new /opt/containers/plain "$1" && bash -euc "$io_script" - /opt/containers/plain "$1"; }
io_inside() { as_new /opt/containers/io-root/opt "$1" && docker exec io-root bash -euc "$io_script" - /opt "$1"; }

# upper_of NAME: where the kernel keeps what a container has written to its /opt.
upper_of() { findmnt -no OPTIONS "/opt/containers/$1-root/opt" | grep -o 'upperdir=[^,]*' | cut -d = -f 2-; }

opt_io() {
    local round rounds=${MOORAGE_BENCH_ROUNDS:-5} what side ours theirs
    step "opt-io: write, read and fsync in a container's /opt, against a directory of the host's on the same disk"
    fresh_archive io
    make io >>"$log" 2>&1
    mkdir -p /opt/containers/plain
    for what in write read fsync; do
        ratios=()
        # One file, read by both ways: where two of them lie on the disk makes more of a difference than the way to them.
        [ "$what" != read ] || ln -f "$(upper_of io)/bench-io" /opt/containers/plain/bench-io
        # The first of all find a disk and a memory that nobody has used for long: neither side is measured by that.
        io_inside "$what" >/dev/null
        io_here "$what" >/dev/null
        for ((round = 1; round <= rounds; round++)); do
            ours=0 theirs=0
            # One run varies twofold on shared hardware, and whoever is second finds things as the first has left them:
            # four of each, in an order that favours neither.
            for side in inside here here inside here inside inside here; do
                took=$("io_$side" "$what")
                case $side in
                inside) ours=$((ours + took)) ;;
                here) theirs=$((theirs + took)) ;;
                esac
            done
            sides "opt-io-$what" "$round" "$ours" "$theirs"
        done
        verdict "opt-io-$what" 1.10 "$(median "${ratios[@]}")"
    done
    rm -rf /opt/containers/plain
    remove io
}
