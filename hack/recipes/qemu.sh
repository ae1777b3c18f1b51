# shellcheck shell=bash
# QEMU for the node, with every library it needs except the C library, unpacked; bin/qemu runs it from there.
versions() { echo QEMU_ DEBIAN_SUITE; }

build() {
	local dir=$1 version
	apt_private_update
	version=$(pin QEMU_VERSION)
	if ! apt_has qemu-system-x86 "$version"; then
		version=$(apt_newest qemu-system-x86 1:10.0)
		[[ -n $version ]] || version=$(apt_newest qemu-system-x86 1:7.2)
		[[ -n $version ]] || die "the mirror has neither the pinned QEMU $(pin QEMU_VERSION) nor another 10.0 or 7.2"
		say "the mirror has no QEMU $(pin QEMU_VERSION); taking $version"
	fi
	apt_unpack "$dir" --deps -t "$(pin DEBIAN_SUITE)-backports" "qemu-system-x86=$version" qemu-utils
	[[ $version != "$(pin QEMU_VERSION)" ]] || apt_check "$dir" qemu-system-x86 "$(pin QEMU_SHA256)"
	mkdir "$dir/bin"
	# Started through these, the libraries are found wherever the cache is.
	local tool
	for tool in qemu-system-x86_64 qemu-img; do
		cat >"$dir/bin/$tool" <<-'RUN'
			#!/bin/bash
			here=$(cd "$(dirname "$0")/.." && pwd)
			lib=$here/usr/lib/x86_64-linux-gnu
			export LD_LIBRARY_PATH=$lib:$here/lib/x86_64-linux-gnu:$lib/ceph
			name=$(basename "$0")
			if [[ $name == qemu-img ]]; then exec "$here/usr/bin/$name" "$@"; fi
			exec "$here/usr/bin/$name" -L "$here/usr/share/qemu" -L "$here/usr/share/seabios" "$@"
		RUN
		chmod 755 "$dir/bin/$tool"
		"$dir/bin/$tool" --version
	done
}
