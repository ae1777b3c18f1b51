# shellcheck shell=bash
# libkrunfw.so.5, the guest kernel as a library: lib/libkrunfw.so.5.
versions() { echo LIBKRUNFW_; }

build() {
	local dir=$1 version so
	apt_private_update
	version=$(pin LIBKRUNFW_VERSION)
	if ! apt_has libkrunfw5 "$version"; then
		version=$(apt_newest libkrunfw5 5.)
		[[ -n $version ]] || die "no suite of this mirror has libkrunfw5: its newer suites (forky, sid) do"
		say "the mirror has no libkrunfw5 $(pin LIBKRUNFW_VERSION); taking $version"
	fi
	mkdir -p "$dir/unpacked" "$dir/lib"
	apt_unpack "$dir/unpacked" "libkrunfw5=$version"
	[[ $version != "$(pin LIBKRUNFW_VERSION)" ]] || apt_check "$dir/unpacked" libkrunfw5 "$(pin LIBKRUNFW_SHA256)"
	so=$(find "$dir/unpacked" -name 'libkrunfw.so.5.*' -type f)
	cp "$so" "$dir/lib/libkrunfw.so.5"
	cp "$dir/unpacked/.debs" "$dir/debs"
	rm -rf "$dir/unpacked"
}
