# shellcheck shell=bash
# What the node has in /usr/local, as a read-only ext4 file.
versions=()
build() {
	mkdir -p "$1/root/bin"
	mkfs.ext4 -q -F -O ^has_journal -m 0 -d "$1/root" "$1/tools.ext4" 64M
	rm -rf "$1/root"
}
