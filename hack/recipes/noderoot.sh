# shellcheck shell=bash
# The node's root file system as a tree (debootstrap minbase and what tests need), before our own files go in.
versions() { echo DEBIAN_SUITE; }

# One list: a shell's tools, what containerd, runc and the CNI plugins call, and what tests and a debugging human use.
NODE_PACKAGES=(linux-image-cloud-amd64 zstd kmod procps psmisc util-linux openssh-server ca-certificates
	iproute2 iptables nftables ethtool iputils-ping netcat-openbsd curl iperf3 tcpdump socat bpftool conntrack
	e2fsprogs attr acl strace jq less)

build() {
	as_root "debootstrap makes device nodes and changes root"
	command -v debootstrap >/dev/null || die "debootstrap is missing: run hack/deps"
	local mirror list
	mirror=$(apt_mirror)
	list=$(IFS=,; echo "${NODE_PACKAGES[*]}")
	debootstrap --variant=minbase --include="$list" "$(pin DEBIAN_SUITE)" "$1/root" "$mirror"
	rm -rf "$1"/root/var/cache/apt/archives/*.deb "$1"/root/var/lib/apt/lists/*
	rm -rf "$1"/root/usr/share/{doc,man,locale}/*
	# The mirror and resolver of this machine are not the node's business: it has no way out.
	: >"$1/root/etc/apt/sources.list"
	: >"$1/root/etc/resolv.conf"
	cp "$1"/root/boot/vmlinuz-* "$1/vmlinuz"
	cp "$1"/root/boot/initrd.img-* "$1/initrd"
}
