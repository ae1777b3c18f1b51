# shellcheck shell=bash
# bin/: containerd, ctr and containerd-shim-runc-v2, static.
versions() { echo CONTAINERD_VERSION; }

build() {
	local version package=github.com/containerd/containerd/v2
	version=$(pin CONTAINERD_VERSION)
	module_copy "$package" "$version" "$1/src"
	CGO_ENABLED=0 module_build "$1/src" "$1/bin" -tags no_btrfs,no_devmapper,no_zfs \
		-ldflags "-s -w -X $package/version.Version=$version -X $package/version.Package=$package" \
		./cmd/containerd ./cmd/ctr ./cmd/containerd-shim-runc-v2
	rm -rf "$1/src"
	"$1/bin/containerd" --version
}
