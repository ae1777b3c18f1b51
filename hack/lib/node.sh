# shellcheck shell=bash
# One test node: a QEMU of ours in a network namespace of its own. To be sourced after common.sh by hack/node.

# Another cache directory has nodes of its own, so a namespace too.
NETNS=kp-nodes
[[ $CACHE == "$HOME/.cache/krunpod" ]] || NETNS=kp-nodes-$(sha256sum <<<"$CACHE" | cut -c1-6)
BRIDGE=kpbr0
HOST_IP4=10.88.0.1/24
HOST_IP6=fd88::1/64
NODE_MEMORY_MIB=${NODE_MEMORY_MIB:-6144}
BOOT_TIMEOUT=180
# A heartbeat older than this many seconds means a frozen node. The host may be busy with two nodes and a build.
HEARTBEAT_TIMEOUT=${HEARTBEAT_TIMEOUT:-20}

node_init() {
	NODE=$1
	[[ $NODE =~ ^[1-9]$ ]] || die "node $NODE: a number from 1 to 9"
	DIR=$CACHE/node/$NODE
	NODE_IP=10.88.0.1$NODE
	TAP=kptap$NODE
}

# --- the network -----------------------------------------------------------------------------------------------

in_netns() { ip netns exec "$NETNS" "$@"; }

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
	if ! ip -n "$NETNS" link show "$TAP" >/dev/null 2>&1; then
		ip -n "$NETNS" tuntap add "$TAP" mode tap
		ip -n "$NETNS" link set "$TAP" master "$BRIDGE" up
	fi
	exec {net_lock}>&-
}

# net_down: takes this node's tap away, and the namespace with the last node.
net_down() {
	local other
	ip -n "$NETNS" link del "$TAP" 2>/dev/null || true
	for other in "$CACHE"/node/*/; do
		[[ -d $other && $(basename "$other") != "$NODE" ]] || continue
		if (node_init "$(basename "$other")" && node_pid >/dev/null); then return 0; fi
	done
	ip netns del "$NETNS" 2>/dev/null || true
}

# --- the machine -----------------------------------------------------------------------------------------------

# node_pid: the QEMU of this node, if it runs; a recycled pid is not mistaken for it.
node_pid() {
	local pid
	pid=$(cat "$DIR/qemu.pid" 2>/dev/null) || return 1
	[[ -n $pid ]] && tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -q -- "-name kp-node$NODE " || return 1
	printf '%s\n' "$pid"
}

# host_runs_microvms: whether this machine's own KVM runs a guest, asked by booting the node's kernel under it until
# it says its first word. Looking at /dev/kvm is no answer: it may open where no guest can run. It is asked only with
# KRUNPOD_NODE_ACCEL=auto, since on a machine with a broken KVM the attempt itself may hang.
host_runs_microvms() {
	local image
	case ${KRUNPOD_NODE_ACCEL:-tcg} in
	kvm) return 0 ;;
	auto) ;;
	*) return 1 ;;
	esac
	[[ -w /dev/kvm ]] || return 1
	image=$("$REPO/hack/cached" nodeimage)
	timeout -k 1 20 "$QEMU" -nodefaults -no-user-config -display none -no-reboot -accel kvm -cpu host -m 512 \
		-kernel "$image/vmlinuz" -append "console=ttyS0 panic=-1" -serial stdio </dev/null 2>/dev/null |
		grep -q -m 1 "Linux version"
}

# accel_options: emulated SVM with one virtual CPU unless the host can do better. Never more than one under emulation:
# QEMU loses nested guests then (a #VMEXIT taken twice), see docs/testing.md.
accel_options() {
	if host_runs_microvms; then
		echo -accel kvm -cpu host -smp 2
	else
		echo -accel tcg,thread=multi,tb-size=1024 -cpu Opteron_G3,+svm,+npt,-misalignsse -smp 1
	fi
}

start_qemu() {
	local image tools accel
	image=$("$REPO/hack/cached" nodeimage)
	tools=$("$REPO/hack/cached" nodetools)
	rm -rf "$DIR"
	mkdir -p "$DIR"
	"$QEMU_IMG" create -q -f qcow2 -F raw -b "$image/root.ext4" "$DIR/disk.qcow2"
	read -r -a accel <<<"$(accel_options)"
	date +%s >"$DIR/started"
	: >"$DIR/heartbeat"
	in_netns "$QEMU" -name "kp-node$NODE" -nodefaults -no-user-config -display none -daemonize \
		-pidfile "$DIR/qemu.pid" -machine q35,usb=off "${accel[@]}" -m "$NODE_MEMORY_MIB" \
		-kernel "$image/vmlinuz" -initrd "$image/initrd" \
		-append "root=/dev/vda rw rootfstype=ext4 init=/sbin/krunpod-init console=ttyS0 loglevel=4 mitigations=off net.ifnames=0 panic=0 kp.node=$NODE" \
		-drive "file=$DIR/disk.qcow2,if=virtio,format=qcow2,cache=unsafe,discard=unmap" \
		-drive "file=$tools/tools.ext4,if=virtio,format=raw,readonly=on" \
		-netdev "tap,id=n0,ifname=$TAP,script=no,downscript=no" \
		-device "virtio-net-pci,netdev=n0,mac=52:54:00:88:00:1$NODE,romfile=" \
		-device virtio-rng-pci \
		-chardev "file,id=hb,path=$DIR/heartbeat" -device virtio-serial-pci -device virtserialport,chardev=hb \
		-chardev "file,id=con,path=$DIR/console.log" -serial chardev:con \
		-qmp "unix:$DIR/qmp.sock,server=on,wait=off"
}

# node_state: down, booting, ok, frozen or panicked; what the emulator or the node's kernel did, not our programs.
node_state() {
	local age
	if ! node_pid >/dev/null; then
		echo down
	elif grep -q -a -E 'Kernel panic|stack guard page was hit' "$DIR/console.log" 2>/dev/null; then
		echo panicked
	elif [[ ! -s $DIR/heartbeat ]]; then
		if (($(date +%s) - $(cat "$DIR/started") > BOOT_TIMEOUT)); then echo frozen; else echo booting; fi
	else
		age=$(($(date +%s) - $(stat -c %Y "$DIR/heartbeat")))
		if ((age > HEARTBEAT_TIMEOUT)); then echo frozen; else echo ok; fi
	fi
}

wait_for_node() {
	local deadline=$((SECONDS + BOOT_TIMEOUT)) state
	while ((SECONDS < deadline)); do
		state=$(node_state)
		case $state in
		ok) if open_master; then return 0; fi ;;
		booting) ;;
		*) break ;;
		esac
		sleep 0.3
	done
	tail -n 30 "$DIR/console.log" >&2 || true
	die "node $NODE did not come up ($state): its console is above and in $DIR/console.log"
}

stop_qemu() {
	local pid
	if [[ -S $DIR/ssh.sock ]]; then ssh -O exit -o "ControlPath=$DIR/ssh.sock" node >/dev/null 2>&1 || true; fi
	if pid=$(node_pid); then
		kill "$pid"
		for _ in {1..50}; do
			node_pid >/dev/null || break
			sleep 0.1
		done
		if node_pid >/dev/null; then kill -9 "$pid"; fi
	fi
}

# --- talking to it ---------------------------------------------------------------------------------------------

ssh_options() {
	local keys
	keys=$("$REPO/hack/cached" sshkeys)
	SSH=(-F none -o "ControlPath=$DIR/ssh.sock" -o "IdentityFile=$keys/root" -o IdentitiesOnly=yes -o BatchMode=yes
		-o "UserKnownHostsFile=$keys/known_hosts" -o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes
		-o KexAlgorithms=curve25519-sha256 -o PreferredAuthentications=publickey -o LogLevel=ERROR
		-o GSSAPIAuthentication=no -o ConnectTimeout=20 -o ServerAliveInterval=15 -o ServerAliveCountMax=8 -o User=root)
}

master_alive() { [[ -S $DIR/ssh.sock ]] && ssh "${SSH[@]}" -O check "$NODE_IP" >/dev/null 2>&1; }

# open_master: the one connection that every exec shares. It is made inside the namespace; its socket works from
# outside. It must not hold this script's descriptors: a pipe's reader would wait for it.
open_master() {
	master_alive && return 0
	exec {master_lock}>"$DIR/ssh.lock"
	flock "$master_lock"
	if ! master_alive; then
		rm -f "$DIR/ssh.sock"
		in_netns setsid ssh "${SSH[@]}" -M -N -f -o ControlPersist=yes "$NODE_IP" \
			</dev/null >/dev/null 2>"$DIR/ssh.err" {master_lock}>&- || { exec {master_lock}>&- && return 1; }
	fi
	exec {master_lock}>&-
}

# node_exec ARG...: runs one command with exactly these arguments; tty when both ends are one.
node_exec() {
	local tty=-T quoted

	if [[ -t 0 && -t 1 ]]; then tty=-t; fi
	open_master || die "node $NODE does not answer ($(node_state)): see hack/node -n $NODE console; hack/node -n $NODE up"
	printf -v quoted '%q ' "$@"
	ssh "${SSH[@]}" "$tty" "$NODE_IP" "$quoted"
}
