# shellcheck shell=bash
# bin/coredns: the cluster's DNS, static, with the few plugins that the test cluster needs.
versions() { echo COREDNS_VERSION; }

build() {
	local version
	version=$(pin COREDNS_VERSION)
	module_copy github.com/coredns/coredns "$version" "$1/src"
	# The others bring the clients of every cloud along.
	sed -i -E '/^\t_ "/{/plugin\/(bind|cache|errors|kubernetes|loadbalance|log)"$/!d}' "$1/src/core/plugin/zplugin.go"
	CGO_ENABLED=0 module_build "$1/src" "$1/bin" -ldflags "-s -w" .
	rm -rf "$1/src"
	"$1/bin/coredns" -version
}
