# shellcheck shell=bash
# A node that is a QEMU with emulated SVM, in the namespace of the nodes' network. To be sourced by node.sh.

NODE_MEMORY_MIB=${NODE_MEMORY_MIB:-6144}
# A heartbeat older than this many seconds means a frozen node: it beats each second, at a real-time priority in the guest
# (hack/guest/init), so only the host can delay it, which may be busy with two nodes and a build.
HEARTBEAT_TIMEOUT=${HEARTBEAT_TIMEOUT:-10}

# qemu_pid: the QEMU of this node, if it runs; a recycled pid is not mistaken for it.
qemu_pid() {
	local pid
	pid=$(cat "$DIR/qemu.pid" 2>/dev/null) || return 1
	[[ -n $pid ]] && tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -q -- "-name kp-node$NODE " || return 1
	printf '%s\n' "$pid"
}

qemu_link() { ip -n "$NETNS" tuntap add "$LINK" mode tap; }

qemu_unlink() { :; }

# What the node's kernel has against attackers and for auditors (memory that is cleared when it is taken, checked copies), and its waits for RCU, took
# a tenth of a pod's start on an emulated processor, SELinux with them. That one stays: what a process reads of its label is compared.
NODE_PARAMETERS="mitigations=off apparmor=0 init_on_alloc=0 hardened_usercopy=off randomize_kstack_offset=off audit=0 rcupdate.rcu_expedited=1"

# The emulator's tables lie in huge pages, and its cache of translated code, to which each guest adds 45 MB, is emptied half as often as with
# 1 GiB: 5.7 s for a container in a VM instead of 6.0, 2.1 s for one of runc instead of 2.3 (means of five rounds in turn on two nodes).
EMULATOR=(env GLIBC_TUNABLES=glibc.malloc.hugetlb=1)
ACCELERATOR=tcg,thread=multi,tb-size=2047

# Never more than one virtual CPU: the emulation loses nested guests then (a #VMEXIT taken twice), see docs/testing.md.
qemu_start() {
	local image tools qemu
	image=$("$REPO/hack/cached" nodeimage)
	tools=$("$REPO/hack/cached" nodetools)
	qemu=$("$REPO/hack/cached" qemu)/bin
	# One that is there is that of a reboot.
	[[ -f $DIR/disk.qcow2 ]] || "$qemu/qemu-img" create -q -f qcow2 -F raw -b "$image/root.ext4" "$DIR/disk.qcow2"
	: >"$DIR/heartbeat"
	in_netns "${EMULATOR[@]}" "$qemu/qemu-system-x86_64" -name "kp-node$NODE" -nodefaults -no-user-config -display none -daemonize \
		-pidfile "$DIR/qemu.pid" -machine q35,usb=off -m "$NODE_MEMORY_MIB" \
		-accel "$ACCELERATOR" -cpu Opteron_G3,+svm,+npt,-misalignsse -smp 1 \
		-kernel "$image/vmlinuz" -initrd "$image/initrd" \
		-append "root=/dev/vda rw rootfstype=ext4 init=/sbin/krunpod-init console=ttyS0 loglevel=4 $NODE_PARAMETERS net.ifnames=0 panic=0 kp.node=$NODE" \
		-drive "file=$DIR/disk.qcow2,if=virtio,format=qcow2,cache=unsafe,discard=unmap" \
		-drive "file=$tools/tools.ext4,if=virtio,format=raw,readonly=on" \
		-netdev "tap,id=n0,ifname=$LINK,script=no,downscript=no" \
		-device "virtio-net-pci,netdev=n0,mac=52:54:00:88:00:1$NODE,romfile=" \
		-device virtio-rng-pci \
		-chardev "file,id=hb,path=$DIR/heartbeat" -device virtio-serial-pci -device virtserialport,chardev=hb \
		-chardev "file,id=con,path=$DIR/console.log" -serial chardev:con \
		-qmp "unix:$DIR/qmp.sock,server=on,wait=off"
}

# qemu_state: booting, ok, frozen or panicked; what the emulator or the node's kernel did, not our programs.
qemu_state() {
	local age
	if grep -q -a -E 'Kernel panic|stack guard page was hit' "$DIR/console.log" 2>/dev/null; then
		echo panicked
	elif [[ ! -s $DIR/heartbeat ]]; then
		if (($(date +%s) - $(cat "$DIR/started") > BOOT_TIMEOUT)); then echo frozen; else echo booting; fi
	else
		age=$(($(date +%s) - $(stat -c %Y "$DIR/heartbeat")))
		if ((age > HEARTBEAT_TIMEOUT)); then echo frozen; else echo ok; fi
	fi
}

# qemu_is_up: its clock was set from one of whole seconds, and times of the cluster's machines are compared.
qemu_is_up() { node_exec date -s "@$(date +%s.%N)" >/dev/null; }

qemu_stop() {
	local pid
	if [[ -S $DIR/ssh.sock ]]; then ssh -O exit -o "ControlPath=$DIR/ssh.sock" node >/dev/null 2>&1 || true; fi
	if pid=$(qemu_pid); then
		kill "$pid"
		for _ in {1..50}; do
			qemu_pid >/dev/null || break
			sleep 0.1
		done
		if qemu_pid >/dev/null; then kill -9 "$pid"; fi
	fi
}

SSH=()

# ssh_options: what every ssh to the node is called with, in SSH.
ssh_options() {
	local keys
	((${#SSH[@]} == 0)) || return 0
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

# qemu_exec ARG...: becomes one command with exactly these arguments; tty when both ends are one.
qemu_exec() {
	local tty=-T quoted
	qemu_pid >/dev/null || die "node $NODE is down: hack/node -n $NODE up"
	ssh_options
	if [[ -t 0 && -t 1 ]]; then tty=-t; fi
	open_master || die "node $NODE does not answer ($(node_state)): see hack/node -n $NODE console; hack/node -n $NODE up"
	printf -v quoted '%q ' "$@"
	exec ssh "${SSH[@]}" "$tty" "$NODE_IP" "$quoted"
}
