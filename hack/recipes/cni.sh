# shellcheck shell=bash
# bin/: the CNI plugins that the node's networks use, static.
versions() { echo CNI_PLUGINS_VERSION; }

build() {
	local version
	version=$(pin CNI_PLUGINS_VERSION)
	module_copy github.com/containernetworking/plugins "$version" "$1/src"
	CGO_ENABLED=0 module_build "$1/src" "$1/bin" \
		-ldflags "-s -w -X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=$version" \
		./plugins/main/bridge ./plugins/main/loopback ./plugins/main/ptp ./plugins/ipam/host-local \
		./plugins/meta/portmap ./plugins/meta/firewall ./plugins/meta/tuning ./plugins/meta/bandwidth
	rm -rf "$1/src"
}
