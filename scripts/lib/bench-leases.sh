# shellcheck shell=bash
# The cases of scripts/bench that are about leases: dockerd's calls are made by curl, in namespaces without containers.
# Sourced by world-bench, whose words these are: here, log, took, ratios.
: "${log:=/dev/null}" "${here:=scripts/lib}"

plugin=/run/moorage/plugin.sock

# A MAC of our own that nobody had before, by its number.
fresh_mac() { printf '02:be:%02x:%02x:%02x:%02x\n' $((BASHPID >> 8 & 255)) $((BASHPID & 255)) $(($1 >> 8 & 255)) $(($1 & 255)); }

network_id() { docker network inspect -f '{{.Id}}' bench; }

# create_body NETWORK ENDPOINT MAC: CreateEndpoint as dockerd asks for one of moorage's containers.
create_body() {
    printf '{"NetworkID":"%s","EndpointID":"%s","Interface":{},"Options":{"moorage.mac":"%s","moorage.hostname":"%s"}}' \
        "$1" "$2" "$3" "$2"
}

# call METHOD BODY: prints the answer, which must be no error.
call() {
    local answer
    answer=$(curl -fsS --unix-socket "$plugin" -d "$2" "http://plugin/NetworkDriver.$1")
    [[ $answer != *'"Err"'* ]] || fail "$1 was refused: $answer"
    echo "$answer"
}

# timed_call METHOD BODY: leaves the microseconds from the request to the answer in $took.
timed_call() {
    local said
    said=$(curl -fsS --unix-socket "$plugin" -d "$2" -w '\n%{time_total}' "http://plugin/NetworkDriver.$1")
    [[ $said != *'"Err"'* ]] || fail "$1 was refused: $said"
    took=$(awk -v seconds="${said##*$'\n'}" 'BEGIN { printf "%d", seconds * 1e6 }')
}

end_endpoint() {
    local body="{\"NetworkID\":\"$1\",\"EndpointID\":\"$2\"}"
    call Leave "$body" >>"$log"
    call DeleteEndpoint "$body" >>"$log"
}

# The whole cycle of udhcpc with a MAC that the server does not know, on a macvlan in a namespace of its own.
udhcpc_cycle() {
    nsenter --net="/run/netns/bench-udhcpc" udhcpc -i eth0 -f -q -n -t 10 -T 2 -s "$MOORAGE_WORLD/tmp/udhcpc-ip"
}

# udhcpc_link PARENT MAC
udhcpc_link() {
    ip netns add bench-udhcpc
    ip link add byhand link "$1" address "$2" type macvlan mode bridge
    ip link set byhand netns bench-udhcpc name eth0
    ip -n bench-udhcpc link set eth0 up
}

# rebind_against CASE GOAL PARENT: a container started again with its lease, against udhcpc.
rebind_against() {
    local id round ours mac rounds=${MOORAGE_BENCH_ROUNDS:-7}
    # dnsmasq pings six addresses in half a minute, and offers the seventh at once.
    [ "$1" != rebind ] || [ "$rounds" -le 5 ] || rounds=5
    ratios=()
    id=$(network_id)
    mac=$(fresh_mac 1)
    # shellcheck disable=SC2016
    printf '#!/bin/sh\n[ "$1" != bound ] || ip addr add "$ip/$mask" dev "$interface"\n' >"$MOORAGE_WORLD/tmp/udhcpc-ip"
    chmod 755 "$MOORAGE_WORLD/tmp/udhcpc-ip"
    call CreateEndpoint "$(create_body "$id" "$1-0" "$mac")" >>"$log"
    end_endpoint "$id" "$1-0"
    for ((round = 1; round <= rounds; round++)); do
        timed_call CreateEndpoint "$(create_body "$id" "$1-$round" "$mac")"
        ours=$took
        end_endpoint "$id" "$1-$round"
        udhcpc_link "$3" "$(fresh_mac $((round + 1)))"
        timed udhcpc_cycle
        ip netns del bench-udhcpc
        sides "$1" "$round" "$ours" "$took"
    done
    verdict "$1" "$2" "$(median "${ratios[@]}")"
}

# A network whose leases go back to the server with it. network_on PARENT
network_on() { docker network create -d moorage --ipam-driver null -o parent="$1" bench >>"$log"; }
network_gone() { docker network rm bench >>"$log"; }

rebind() {
    step "rebind: from CreateEndpoint with a stored lease to its answer, against udhcpc's whole cycle"
    network_on "$LAB_PARENT"
    rebind_against rebind-at-once 1.00 "$LAB_PARENT"
    network_gone
    moorage scripthacker start-lab --name bench --subnet 10.87.0.0/24 >>"$log" 2>&1
    network_on mo-bench
    rebind_against rebind 0.05 mo-bench
    network_gone
    moorage scripthacker stop-lab --name bench >>"$log" 2>&1
}

daemon_kb() { awk '/^VmRSS/ { print $2 }' "/proc/$(world pid daemon)/status"; }

# Nanoseconds of processor time that all threads of the daemon have had.
daemon_cpu() { cat /proc/"$(world pid daemon)"/task/*/schedstat | awk '{ sum += $1 } END { printf "%d", sum }'; }

bound_leases() { moorage list-leases --format json | grep -o '"attached":true' | wc -l; }
all_bound() { [ "$(bound_leases)" = "$1" ]; }

# take_link NAMESPACE ADDRESS LINK: what dockerd does after Join.
take_link() {
    ip link set "$3" netns "$1" name eth0
    ip -n "$1" address add "$2" dev eth0
    ip -n "$1" link set eth0 up
}

lease_memory() {
    local id count=200 number name before after address answer link begin
    step "lease-memory: kB of resident memory a lease, of $count on one daemon, and its processor time at rest"
    network_on "$LAB_PARENT"
    id=$(network_id)
    world stop daemon
    world start daemon
    before=$(daemon_kb)
    for ((number = 1; number <= count; number++)); do
        name=bench-$number
        ip netns add "$name"
        answer=$(call CreateEndpoint "$(create_body "$id" "$name" "$(fresh_mac $((number + 1000)))")")
        address=$(sed -n 's/.*"Address":"\([^"]*\)".*/\1/p' <<<"$answer")
        answer=$(call Join "{\"NetworkID\":\"$id\",\"EndpointID\":\"$name\",\"SandboxKey\":\"/run/netns/$name\"}")
        link=$(sed -n 's/.*"SrcName":"\([^"]*\)".*/\1/p' <<<"$answer")
        take_link "$name" "$address" "$link"
        ip -n "$name" route add default via "$(sed -n 's/.*"Gateway":"\([^"]*\)".*/\1/p' <<<"$answer")"
    done
    until_answers 60 "the last of $count leases" all_bound "$count"
    # Addresses are proved and announced for some ten seconds.
    sleep 20
    after=$(daemon_kb)
    begin=$(daemon_cpu)
    sleep 60
    begin=$(($(daemon_cpu) - begin))
    say "$before kB before, $after kB with $count leases, $begin ns of processor time in 60 s"
    verdict lease-memory 50 "$(awk -v grown=$((after - before)) -v count="$count" 'BEGIN { print grown / count }')"
    verdict lease-memory-cpu 0.1 "$(awk -v ns="$begin" 'BEGIN { print ns / 60e9 * 100 }')"
    for ((number = 1; number <= count; number++)); do
        end_endpoint "$id" "bench-$number"
        ip netns del "bench-$number"
    done
    network_gone
}

# burst_config ID FIRST COUNT: that many calls as a configuration of curl.
burst_config() {
    local number
    for ((number = $2; number < $2 + $3; number++)); do
        [ "$number" = "$2" ] || echo next
        printf 'url = "http://plugin/NetworkDriver.CreateEndpoint"\nunix-socket = "%s"\noutput = "%s"\nsilent\nfail\n' "$plugin" \
            "$MOORAGE_WORLD/tmp/burst/$number"
        printf 'data = "%s"\n' "$(create_body "$1" "burst-$number" "$(fresh_mac "$number")" | sed 's/"/\\"/g')"
    done
}

# ask_at_once ID FIRST COUNT: asks for new leases, all at once.
ask_at_once() {
    rm -rf "$MOORAGE_WORLD/tmp/burst"
    mkdir "$MOORAGE_WORLD/tmp/burst"
    burst_config "$1" "$2" "$3" >"$MOORAGE_WORLD/tmp/burst.curl"
    timed curl --parallel --parallel-immediate --parallel-max "$3" -K "$MOORAGE_WORLD/tmp/burst.curl"
    [ "$(grep -l '"Address":"' "$MOORAGE_WORLD"/tmp/burst/* | wc -l)" = "$3" ] || fail "not all of $3 got an address"
}

# burst PARENT COUNT: so many new leases of a fresh network, asked for at once when the disk is at rest; the microseconds are
# in $took.
burst() {
    local id turn first=$number
    network_on "$1"
    id=$(network_id)
    number=$((number + $2))
    settle
    ask_at_once "$id" "$first" "$2"
    for ((turn = first; turn < number; turn++)); do end_endpoint "$id" "burst-$turn"; done
    network_gone
}

# bursts CASE PARENT ROUNDS: twenty against one; the ratios are in $ratios.
bursts() {
    local round ours number=5000
    ratios=()
    # The first of all finds caches cold.
    burst "$2" 1
    for ((round = 1; round <= $3; round++)); do
        burst "$2" 20
        ours=$took
        burst "$2" 1
        awk -v name="$1" -v round="$round" -v ours="$ours" -v one="$took" \
            'BEGIN { printf "%s %d: twenty %.3f s, one %.3f s, ratio %.2f\n", name, round, ours / 1e6, one / 1e6, ours / one }'
        ratios+=("$(awk -v ours="$ours" -v one="$took" 'BEGIN { print ours / one }')")
    done
}

# A LAN on mo-burst whose server pings each address before it offers it, many at a time: ISC's dhcpd as it comes.
pinging_lan() {
    local directory=$MOORAGE_WORLD/tmp/dhcpd
    ip netns add bench-dhcpd
    ip link add mo-burst type veth peer name lan0 netns bench-dhcpd
    ip address add 10.88.0.2/24 dev mo-burst
    ip link set mo-burst up
    ip -n bench-dhcpd address add 10.88.0.1/24 dev lan0
    ip -n bench-dhcpd link set lan0 up
    mkdir -p "$directory"
    : >"$directory/leases"
    printf '%s\n' 'authoritative;' 'ddns-update-style none;' \
        'subnet 10.88.0.0 netmask 255.255.255.0 { range 10.88.0.16 10.88.0.250; }' >"$directory/dhcpd.conf"
    # A copy: some hosts confine the program at its own place to its own files.
    cp /usr/sbin/dhcpd "$directory/dhcpd"
    ip netns exec bench-dhcpd "$directory/dhcpd" -4 -f -q -user root -group root -cf "$directory/dhcpd.conf" \
        -lf "$directory/leases" -pf "$directory/pid" lan0 >>"$log" 2>&1 &
    pinging=$!
    until_answers 20 "dhcpd" test -s "$directory/pid"
}

pinging_lan_gone() {
    kill "$pinging"
    wait "$pinging" || true
    ip netns del bench-dhcpd
    rm -r "$MOORAGE_WORLD/tmp/dhcpd"
}

# bare_exchanges PARENT ROUNDS: what twenty leases take against one where nobody does anything but send packets.
bare_exchanges() {
    local round twenty one
    ratios=()
    "$here/../bare/dhcp-exchanges" "$1" 1 >>"$log"
    for ((round = 1; round <= $2; round++)); do
        twenty=$("$here/../bare/dhcp-exchanges" "$1" 20)
        one=$("$here/../bare/dhcp-exchanges" "$1" 1)
        say "bare packets $round: twenty $twenty us, one $one us"
        ratios+=("$(awk -v twenty="$twenty" -v one="$one" 'BEGIN { print twenty / one }')")
    done
    say "bare packets: ratio $(median "${ratios[@]}")"
}

lease_burst() {
    local pinging rounds=${MOORAGE_BENCH_ROUNDS:-7}
    step "lease-burst: twenty leases asked for at once, against one; the server pings an address before it offers it"
    pinging_lan
    bursts lease-burst mo-burst "$rounds"
    pinging_lan_gone
    verdict lease-burst 1.50 "$(median "${ratios[@]}")"
    step "lease-burst-at-once: the same, with a server that answers at once (for comparison, no goal), and bare packets"
    bursts lease-burst-at-once "$LAB_PARENT" "$rounds"
    say "lease-burst-at-once: ratio $(median "${ratios[@]}")"
    bare_exchanges "$LAB_PARENT" "$rounds"
}
