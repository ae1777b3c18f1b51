# shellcheck shell=bash
# What the node has in /usr/local (bin/ and libexec/cni/): as a tree (root/, hard links) and as a read-only ext4 file.
# Apart from the root file system, so that a new containerd does not build a new root.
versions() { :; }

inputs() {
	local tool
	for tool in containerd runc cni critools; do "$REPO/hack/cached" --key "$tool"; done
}

build() {
	local tool dir
	mkdir -p "$1"/root/{bin,sbin,lib,share,libexec/cni}
	for tool in containerd runc critools; do
		dir=$("$REPO/hack/cached" "$tool")
		cp -l "$dir"/bin/* "$1/root/bin/"
	done
	dir=$("$REPO/hack/cached" cni)
	cp -l "$dir"/bin/* "$1/root/libexec/cni/"
	mkfs.ext4 -q -F -O ^has_journal -m 0 -d "$1/root" "$1/tools.ext4" 400M
}
