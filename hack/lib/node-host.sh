# shellcheck shell=bash
# A node that is this machine itself: the root file system of the QEMU nodes in namespaces of its own, on the host's
# kernel. Mounts, processes, cgroups, interfaces and files of the node are its own and go with it. To be sourced by
# node.sh.

# Whom a host node gets its controllers from: what a pod's limits need.
CONTROLLERS=(cpuset cpu io memory pids)
# Modules that a node or a krun pod needs and the kernel may not load by itself. Not br_netfilter: with it the host's
# own bridges would pass their frames to iptables.
MODULES=(overlay tun veth bridge sch_ingress cls_matchall act_mirred kvm)
# Bound in seconds of the guest that asks whether KVM works; on hardware it takes two.
TRIAL_TIMEOUT=${TRIAL_TIMEOUT:-30}

host_netns() { echo "$NETNS-$NODE"; }

host_link() {
	ip netns add "$(host_netns)"
	ip -n "$NETNS" link add "$LINK" type veth peer name eth0 netns "$(host_netns)"
}

host_unlink() { ip netns del "$(host_netns)" 2>/dev/null || true; }

# host_pid: told by when the process began too, since the number may be another's by now. Not by its command line, which
# is empty while a process becomes another program.
host_pid() {
	local pid began stat
	read -r pid began 2>/dev/null <"$DIR/init.pid" || return 1
	read -r -a stat 2>/dev/null <"/proc/$pid/stat" || return 1
	[[ ${stat[21]} == "$began" && ${stat[2]} != Z ]] || return 1
	printf '%s\n' "$pid"
}

host_state() { if grep -q "^krunpod-init: .* is up" "$DIR/console.log"; then echo ok; else echo booting; fi; }

host_start() {
	local image tools cgroup
	image=$("$REPO/hack/cached" nodeimage)
	tools=$("$REPO/hack/cached" nodetools)
	cgroup=$(host_cgroup)
	mkdir -p "$cgroup/init.scope"
	host_take_controllers
	# The cgroup namespace is rooted where the process is when it is made; that root must then be left, since a cgroup
	# with processes cannot hand controllers on.
	(
		echo "$BASHPID" >"$cgroup/cgroup.procs"
		# shellcheck disable=SC2016 # the inner shell's
		exec setsid nsenter --net="/run/netns/$(host_netns)" unshare --cgroup bash -c 'echo 0 >"$0" && exec "$@"' \
			"$cgroup/init.scope/cgroup.procs" unshare --mount --uts --ipc --pid --fork env -i "PATH=$PATH" \
			"$REPO/hack/lib/host-root" "$NODE" "$DIR" "$image/root" "$tools/root"
	) </dev/null >"$DIR/console.log" 2>&1 &
	# Until its PID 1 has said which process it is.
	for _ in {1..100}; do
		if [[ -s $DIR/init.pid ]] || ! kill -0 $! 2>/dev/null; then break; fi
		sleep 0.1
	done
}

host_is_up() { :; }

# host_stop: with its PID 1 ends every process of the node, and with those every mount.
host_stop() {
	local pid cgroup
	if pid=$(host_pid); then kill -9 "$pid"; fi
	cgroup=$(host_cgroup)
	[[ -d $cgroup ]] || return 0
	# Again and again, since an exec that found the node may enter its cgroup only now: it ends by itself.
	for _ in {1..100}; do
		if grep -q 'populated 0' "$cgroup/cgroup.events" && find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null; then break; fi
		sleep 0.1
	done
	[[ ! -d $cgroup ]] || die "processes are left in $cgroup: end them, then run down again"
	host_give_controllers
}

# host_exec ARG...: becomes one command with exactly these arguments, the environment of the QEMU node's sshd, and this
# terminal. Its cgroup is the node's, so that down ends it.
host_exec() {
	local pid env
	pid=$(host_pid) || die "node $NODE is down: hack/node -n $NODE up"
	read -r -a env < <(sed -n 's/^SetEnv //p' "$REPO/hack/guest/sshd_config")
	echo "$BASHPID" >"$(host_cgroup)/init.scope/cgroup.procs"
	umask 022
	exec nsenter -t "$pid" -m -u -i -n -p -C env -i -C /root "${env[@]}" HOME=/root USER=root LOGNAME=root \
		SHELL=/bin/bash TERM="${TERM:-dumb}" "$@"
}

# --- cgroups ---------------------------------------------------------------------------------------------------

# cgroup2_mount: where this machine has cgroup v2; empty where it has none.
cgroup2_mount() { awk '$3 == "cgroup2" {print $2; exit}' /proc/mounts; }

host_cgroup() { echo "$(cgroup2_mount)/$NETNS-$NODE"; }

# host_take_controllers: what the root hands on to its children that it did not before is noted, to be undone.
host_take_controllers() {
	local c root
	root=$(cgroup2_mount)
	for c in "${CONTROLLERS[@]}"; do
		if grep -qw "$c" "$root/cgroup.controllers" && ! grep -qw "$c" "$root/cgroup.subtree_control" &&
			echo "+$c" 2>/dev/null >"$root/cgroup.subtree_control"; then
			echo "$c" >>"$CACHE/.controllers"
		fi
	done
}

# host_give_controllers: undoes it with the last node; a controller that another user has taken since stays.
host_give_controllers() {
	local c root
	root=$(cgroup2_mount)
	[[ -f $CACHE/.controllers && -z $(find "$root" -maxdepth 1 -name "$NETNS-?") ]] || return 0
	while read -r c; do echo "-$c" 2>/dev/null >"$root/cgroup.subtree_control" || true; done <"$CACHE/.controllers"
	rm "$CACHE/.controllers"
}

# --- can this machine do it? -----------------------------------------------------------------------------------

# Each thing is tried: a device file or a module's name prove nothing.

# host_lacks_for_nodes: says, a line each, what this machine lacks for a node of any use; nothing where one can be.
host_lacks_for_nodes() {
	local cgroup
	try() { "${@:2}" >/dev/null 2>&1 || echo "$1"; }
	modprobe -a -q "${MODULES[@]}" 2>/dev/null || true
	if [[ -z $(cgroup2_mount) ]]; then echo "cgroup v2 is not mounted" && return; fi
	cgroup=$(host_cgroup)
	try "it cannot make a cgroup and enter it" bash -c 'mkdir -p "$0" && echo $$ >"$0/cgroup.procs"' "$cgroup"
	rmdir "$cgroup" 2>/dev/null || true
	try "it cannot make namespaces (CAP_SYS_ADMIN)" \
		unshare --mount --uts --ipc --net --cgroup --pid --fork mount -t proc proc /proc
	try "the kernel module overlay is missing" unshare --mount mount -t overlay -o lowerdir=/usr:/etc overlay /mnt
	try "the kernel module veth is missing" unshare --net ip link add kp1 type veth peer name kp2
	try "the kernel module bridge is missing" unshare --net ip link add kp1 type bridge
}

# host_lacks_for_microvms: the same for krun pods on a node.
host_lacks_for_microvms() {
	local root c
	modprobe -q kvm_intel 2>/dev/null || modprobe -q kvm_amd 2>/dev/null || true
	root=$(cgroup2_mount)
	if [[ $root != /sys/fs/cgroup ]]; then
		echo "it does not use cgroup v2 alone"
	# Only the true root, which has no cgroup.events, may hold processes and hand controllers on.
	elif [[ -e $root/cgroup.events && -n $(<"$root/cgroup.procs") ]]; then
		echo "it is a container, whose root cgroup holds processes and hands no controllers on"
	else
		for c in cpu memory pids; do
			grep -qw "$c" "$root/cgroup.controllers" || echo "cgroup v2 does not have the controller $c"
		done
	fi
	unshare --net bash -c '
		need() { "${@:2}" >/dev/null 2>&1 || echo "the kernel module $1 is missing"; }
		ip link set lo up
		need tun ip tuntap add kp0 mode tap
		need sch_ingress tc qdisc add dev lo clsact
		# The network bridge does with u32 where there is no matchall.
		need cls_matchall sh -c "tc filter add dev lo ingress matchall ||
			tc filter add dev lo ingress u32 match u32 0 0"
		need act_mirred tc actions add action mirred egress redirect dev lo'
	host_runs_a_guest || echo "its KVM does not run a guest"
}

# host_runs_a_guest: whether this machine's KVM does, asked by booting one whose init says a line. Not by looking at
# /dev/kvm, which may open where no guest can run; nor with libkrun, whose faults are ours to find. The answer holds
# until the machine boots anew.
host_runs_a_guest() {
	local boot answer image qemu file=$CACHE/kvm-trial
	boot=$(</proc/sys/kernel/random/boot_id)
	exec {trial_lock}>"$CACHE/.lock-kvm-trial"
	flock "$trial_lock"
	answer=$(sed -n "s/^$boot //p" "$file" 2>/dev/null || true)
	if [[ -z $answer ]]; then
		# Without them nothing is learnt, so nothing is kept.
		image=$("$REPO/hack/cached" nodeimage) && qemu=$("$REPO/hack/cached" qemu)/bin || return 1
		say "asking this machine's KVM to run a guest (the answer is kept in $file until the next boot)"
		answer=no
		if boot_guest "$image" "$qemu"; then answer=yes; fi
		echo "$boot $answer" >"$file"
	fi
	exec {trial_lock}>&-
	[[ $answer == yes ]]
}

# boot_guest IMAGE QEMU: boots the node's kernel with the shell of its initrd for an init. The sum is done in the guest:
# the kernel prints its command line too.
boot_guest() {
	[[ -w /dev/kvm ]] || return 1
	# The guest ends with its init: nothing is left to run.
	timeout -k 1 "$TRIAL_TIMEOUT" "$2/qemu-system-x86_64" -nodefaults -no-user-config -display none -no-reboot \
		-accel kvm -cpu host -m 512 -kernel "$1/vmlinuz" -initrd "$1/initrd" \
		-append 'console=ttyS0 panic=-1 rdinit=/bin/sh -- -c "echo six times seven is $((6*7))"' \
		-serial stdio </dev/null 2>/dev/null | grep -a "six times seven is 42" >/dev/null
}
