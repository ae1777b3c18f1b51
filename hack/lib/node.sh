# shellcheck shell=bash
# One test node, of either kind: its number, its state, its place in the network of the nodes. To be sourced after
# common.sh by hack/node. What a kind does is in node-qemu.sh and node-host.sh, as functions KIND_start, KIND_stop,
# KIND_pid, KIND_state, KIND_link, KIND_unlink and KIND_exec; the last one does not come back.

# Another cache directory has nodes of its own, so a namespace too.
NETNS=kp-nodes
[[ $CACHE == "$HOME/.cache/krunpod" ]] || NETNS=kp-nodes-$(sha256sum <<<"$CACHE" | cut -c1-6)
BRIDGE=kpbr0
HOST_IP4=10.88.0.1/24
HOST_IP6=fd88::1/64
BOOT_TIMEOUT=180

source "$REPO/hack/lib/node-qemu.sh"
source "$REPO/hack/lib/node-host.sh"

# node_init NUMBER: a node stays of the kind that it was started as, whatever KRUNPOD_NODE says later.
node_init() {
	NODE=$1
	[[ $NODE =~ ^[1-9]$ ]] || die "node $NODE: a number from 1 to 9"
	DIR=$CACHE/node/$NODE
	NODE_IP=10.88.0.1$NODE
	LINK=kptap$NODE
	KIND=$(cat "$DIR/kind" 2>/dev/null || echo qemu)
}

node_pid() { "${KIND}_pid"; }

# node_state: down, booting, ok; of a QEMU also frozen or panicked.
node_state() { if node_pid >/dev/null; then "${KIND}_state"; else echo down; fi; }

# choose_kind: the kind that a new node is to be, by KRUNPOD_NODE.
choose_kind() {
	local node pods
	[[ ${KRUNPOD_NODE:-auto} =~ ^(auto|host|qemu)$ ]] || die "KRUNPOD_NODE=$KRUNPOD_NODE: auto, host or qemu"
	if [[ ${KRUNPOD_NODE:-} == qemu ]]; then echo qemu && return; fi
	mapfile -t node < <(host_lacks_for_nodes)
	mapfile -t pods < <(host_lacks_for_microvms)
	if [[ ${KRUNPOD_NODE:-} == host ]]; then
		((${#node[@]} == 0)) || die "this machine cannot be a node: ${node[*]/%/;} see to that, or take KRUNPOD_NODE=qemu"
		((${#pods[@]} == 0)) || say "node $NODE will not run krun pods, as was asked all the same: ${pods[*]/%/;}"
		echo host
	elif ((${#node[@]} + ${#pods[@]})); then
		say "node $NODE is a QEMU, since this machine does not run microVMs itself: ${node[*]/%/;} ${pods[*]/%/;}"
		echo qemu
	else
		echo host
	fi
}

node_up() {
	local begin=$SECONDS state
	as_root "network namespaces and mounts"
	state=$(node_state)
	if [[ $state == ok ]]; then
		[[ ${KRUNPOD_NODE:-auto} =~ ^(auto|$KIND)$ ]] ||
			die "node $NODE runs, and is of kind $KIND: hack/node -n $NODE down, then up again"
		say "node $NODE is up"
		return 0
	fi
	node_down
	KIND=$(choose_kind)
	mkdir -p "$DIR"
	echo "$KIND" >"$DIR/kind"
	date +%s >"$DIR/started"
	net_up
	"${KIND}_start"
	wait_for_node
	say "node $NODE ($KIND) is up in $((SECONDS - begin)) s: hack/node -n $NODE exec -- COMMAND"
}

# node_reboot: off and on again, with the disk it had. A node of kind host has no kernel of its own to boot.
node_reboot() {
	local begin=$SECONDS
	[[ $KIND == qemu ]] || die "node $NODE is of kind $KIND: only a QEMU can be rebooted"
	node_exec sync
	qemu_stop
	date +%s >"$DIR/started"
	qemu_start
	wait_for_node
	say "node $NODE is up again after $((SECONDS - begin)) s; containerd is not: hack/node -n $NODE exec -- /etc/kpnode/start"
}

wait_for_node() {
	local deadline=$((SECONDS + BOOT_TIMEOUT)) state
	while ((SECONDS < deadline)); do
		state=$(node_state)
		case $state in
		ok) if node_exec true 2>/dev/null; then "${KIND}_is_up" && return 0; fi ;;
		booting) ;;
		*) break ;;
		esac
		sleep 0.3
	done
	tail -n 30 "$DIR/console.log" >&2 || true
	die "node $NODE did not come up ($state): its console is above and in $DIR/console.log"
}

node_down() {
	"${KIND}_stop"
	net_down
	# Never into something that is still mounted there.
	rm -rf --one-file-system "$DIR"
}

# node_exec ARG...: runs one command there with exactly these arguments.
node_exec() { ("${KIND}_exec" "$@"); }

# --- the network -----------------------------------------------------------------------------------------------

in_netns() { ip netns exec "$NETNS" "$@"; }

# net_up: makes the namespace with the bridge, if there is none, and the node's port.
net_up() {
	exec {net_lock}>"$CACHE/.lock-netns"
	flock "$net_lock"
	if ! ip netns exec "$NETNS" true 2>/dev/null; then
		ip netns del "$NETNS" 2>/dev/null || true
		ip netns add "$NETNS"
		ip -n "$NETNS" link set lo up
		in_netns sysctl -q -w net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
		ip -n "$NETNS" link add "$BRIDGE" type bridge forward_delay 0
		ip -n "$NETNS" addr add "$HOST_IP4" dev "$BRIDGE"
		ip -n "$NETNS" -6 addr add "$HOST_IP6" dev "$BRIDGE" nodad
		ip -n "$NETNS" link set "$BRIDGE" up
	fi
	if ! ip -n "$NETNS" link show "$LINK" >/dev/null 2>&1; then
		"${KIND}_link"
		ip -n "$NETNS" link set "$LINK" master "$BRIDGE" up
	fi
	exec {net_lock}>&-
}

# net_down: takes this node's port away, and the namespace with the last node.
net_down() {
	local other
	ip -n "$NETNS" link del "$LINK" 2>/dev/null || true
	"${KIND}_unlink"
	for other in "$CACHE"/node/*/; do
		[[ -d $other && $(basename "$other") != "$NODE" ]] || continue
		if (node_init "$(basename "$other")" && node_pid >/dev/null); then return 0; fi
	done
	ip netns del "$NETNS" 2>/dev/null || true
}
