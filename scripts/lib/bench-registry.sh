# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154,SC2317  # sourced by world-bench, whose variables these are; cases are called by name
# The cases of the bench that are about the registry.

# Not on the loopback network, where Docker asks for no certificate. TEST-NET-1 (RFC 5737).
served=192.0.2.10
served_state=/var/lib/moorage/registry

start_served() {
    ip address add "$served/32" dev lo
    {
        moorage start-registry --name "$served" --port 6443 --trust
        echo correct-horse | moorage add-user bench
        echo correct-horse | docker login -u bench --password-stdin "$served:6444"
    } >>"$log" 2>&1
}

stop_served() {
    docker logout "$served:6444" >>"$log"
    moorage stop-registry >>"$log" 2>&1
    rm -rf "$served_state" "/etc/docker/certs.d/$served":*
    ip address del "$served/32" dev lo
}

# The bench's image from the bare registry to ours.
to_served() {
    docker pull --quiet "$image" >>"$log"
    docker tag "$image" "$served:6444/bench:latest"
    docker push --quiet "$served:6444/bench:latest" >>"$log"
}

pull_new() {
    docker pull --quiet "$1"
}

registry_pull() {
    local round rounds=${MOORAGE_BENCH_ROUNDS:-7} ours name=$served:6443/bench:latest
    ratios=()
    step "registry-pull: an image of 400 MB from our registry over TLS, against the bare server on HTTP"
    start_served
    to_served
    docker rmi --force "$image" "$served:6444/bench:latest" >>"$log"
    for ((round = 1; round <= rounds; round++)); do
        settle
        timed pull_new "$name"
        ours=$took
        docker rmi --force "$name" >>"$log"
        settle
        timed pull_new "$image"
        forget_image
        sides registry-pull "$round" "$ours" "$took"
    done
    stop_served
    verdict registry-pull 1.15 "$(median "${ratios[@]}")"
}

# put_blob REPOSITORY TEXT: uploads it to the bare registry; prints its digest.
put_blob() {
    local digest location
    digest=sha256:$(printf %s "$2" | sha256sum | cut -d' ' -f1)
    location=$(curl -fsS -X POST -D - -o /dev/null "http://$registry/v2/$1/blobs/uploads/" | tr -d '\r' | sed -n 's/^Location: //p')
    curl -fsS -X PUT -H 'Content-Type: application/octet-stream' --data-binary "$2" "$location&digest=$digest" -o /dev/null
    echo "$digest"
}

# A thousand tags of ten repositories, each an image with a configuration and two layers of its own; kept as a directory.
make_tags() {
    local tags=$kept/tags repository tag config one two
    [ ! -e "$tags/done" ] || return 0
    rm -rf "$tags"
    for repository in {0..9}; do
        for tag in {0..99}; do
            one=$(put_blob "tags/$repository" "one $repository $tag")
            two=$(put_blob "tags/$repository" "two $repository $tag")
            config=$(put_blob "tags/$repository" "{\"config\":{\"Labels\":{\"n\":\"$repository.$tag\"}}}")
            curl -fsS -X PUT -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' -o /dev/null --data-binary \
                "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"size\":1,\"digest\":\"$config\"},\"layers\":[{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"size\":1,\"digest\":\"$one\"},{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"size\":1,\"digest\":\"$two\"}]}" \
                "http://$registry/v2/tags/$repository/manifests/$tag"
        done
    done
    mkdir -p "$tags"
    cp -a "$(registry_data)/docker" "$tags/"
    touch "$tags/done"
}

# Where the world's own registry keeps its images.
registry_data() { sed -n 's/.*rootdirectory: *\([^ ,}]*\).*/\1/p' "$MOORAGE_WORLD/registry.yml"; }

gc_plan() {
    local round rounds=${MOORAGE_BENCH_ROUNDS:-7} ours
    ratios=()
    step "gc-plan: what may go of a registry with 1,000 tags, against the server's own garbage-collect --dry-run"
    world start registry
    make_tags
    start_served
    cp -a "$kept/tags/docker" "$served_state/data/"
    for ((round = 1; round <= rounds; round++)); do
        timed moorage collect-garbage --keep-last 5 --grace 0s --dry-run
        ours=$took
        timed docker-registry garbage-collect --dry-run "$served_state/registry-writer.yml"
        sides gc-plan "$round" "$ours" "$took"
    done
    stop_served
    verdict gc-plan 1.00 "$(median "${ratios[@]}")"
}

apply_ours() { moorage apply-bundle "$MOORAGE_WORLD/tmp/bundle" --key "$MOORAGE_WORLD/tmp/bundle.pub"; }

apply_by_hand() {
    docker load --quiet --input "$MOORAGE_WORLD/tmp/bundle.docker"
    docker push --quiet "$served:6444/bench:latest"
}

apply_bundle() {
    local round rounds=${MOORAGE_BENCH_ROUNDS:-3} ours
    ratios=()
    step "apply-bundle: an image of 400 MB into an empty registry, against docker load and push"
    start_served
    to_served
    docker save --output "$MOORAGE_WORLD/tmp/bundle.docker" "$served:6444/bench:latest"
    docker rmi --force "$image" "$served:6444/bench:latest" >>"$log"
    moorage create-bundle "$MOORAGE_WORLD/tmp/bundle" --only-images --format json >"$MOORAGE_WORLD/tmp/bundle.json" 2>>"$log"
    sed -n 's/.*"key":"\([^"]*\)".*/\1/p' "$MOORAGE_WORLD/tmp/bundle.json" >"$MOORAGE_WORLD/tmp/bundle.pub"
    for ((round = 1; round <= rounds; round++)); do
        rm -rf "$served_state/data/docker"
        settle
        timed apply_ours
        ours=$took
        rm -rf "$served_state/data/docker"
        settle
        timed apply_by_hand
        docker rmi --force "$served:6444/bench:latest" >>"$log"
        sides apply-bundle "$round" "$ours" "$took"
    done
    rm -rf "$MOORAGE_WORLD/tmp/bundle" "$MOORAGE_WORLD/tmp/bundle.docker"
    stop_served
    verdict apply-bundle 1.00 "$(median "${ratios[@]}")"
}
