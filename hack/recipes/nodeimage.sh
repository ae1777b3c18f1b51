# shellcheck shell=bash
# The node's root: noderoot with our init, ssh keys and settings. As a tree (root/, what a node on the host itself puts
# its overlay on) and as a disk: one sparse ext4 file, made without a loop device or a mount.
versions() { :; }

inputs() {
	"$REPO/hack/cached" --key noderoot
	"$REPO/hack/cached" --key sshkeys
	find "$REPO/hack/guest" -type f -print0 | sort -z | xargs -0 sha256sum | cut -d' ' -f1
}

build() {
	local base keys root=$1/root
	base=$("$REPO/hack/cached" noderoot)
	keys=$("$REPO/hack/cached" sshkeys)
	cp -al "$base/root" "$root"
	# --remove-destination: the tree is hard links into noderoot, whose files must not change.
	install_file() { mkdir -p "$(dirname "$root$2")" && cp --remove-destination "$1" "$root$2" && chmod "$3" "$root$2"; }
	install_file "$REPO/hack/guest/init" /sbin/krunpod-init 755
	install_file "$REPO/hack/guest/sshd_config" /etc/ssh/sshd_config 644
	install_file "$REPO/hack/guest/hosts" /etc/hosts 644
	rm -f "$root"/etc/ssh/ssh_host_*
	install_file "$keys/host" /etc/ssh/ssh_host_ed25519_key 600
	install_file "$keys/root.pub" /root/.ssh/authorized_keys 600
	mkdir -p "$root"/{run/sshd,opt/krunpod,etc/krunpod,usr/local}
	cp "$base/vmlinuz" "$base/initrd" "$1/"
	mkfs.ext4 -q -F -L node -O ^has_journal -E lazy_itable_init=1 -m 0 -d "$root" "$1/root.ext4" 12G
}
