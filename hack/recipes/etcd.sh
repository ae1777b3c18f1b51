# shellcheck shell=bash
# bin/etcd, for the control plane of the test cluster.
versions() { echo ETCD_; }

build() {
	local dir=$1 version
	apt_private_update
	version=$(pin ETCD_VERSION)
	if ! apt_has etcd-server "$version"; then
		version=$(apt_newest etcd-server 3.5.)
		[[ -n $version ]] || die "no suite of this mirror has an etcd-server 3.5: its newer suites (trixie, forky) do"
		say "the mirror has no etcd-server $(pin ETCD_VERSION); taking $version"
	fi
	mkdir -p "$dir/unpacked" "$dir/bin"
	apt_unpack "$dir/unpacked" "etcd-server=$version"
	[[ $version != "$(pin ETCD_VERSION)" ]] || apt_check "$dir/unpacked" etcd-server "$(pin ETCD_SHA256)"
	cp "$dir/unpacked/usr/bin/etcd" "$dir/bin/"
	cp "$dir/unpacked/.debs" "$dir/debs"
	rm -rf "$dir/unpacked"
	"$dir/bin/etcd" --version
}
