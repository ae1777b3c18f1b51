# shellcheck shell=bash
# bin/: crictl and critest, static.
versions() { echo CRI_TOOLS_VERSION; }

build() {
	local version
	version=$(pin CRI_TOOLS_VERSION)
	module_copy sigs.k8s.io/cri-tools "$version" "$1/src"
	CGO_ENABLED=0 module_build "$1/src" "$1/bin" \
		-ldflags "-s -w -X sigs.k8s.io/cri-tools/pkg/version.Version=$version" ./cmd/crictl
	CGO_ENABLED=0 module_go "$1/src" test -c -ldflags "-s -w -X sigs.k8s.io/cri-tools/pkg/version.Version=$version" \
		-o "$1/bin/critest" ./cmd/critest
	rm -rf "$1/src"
	"$1/bin/crictl" --version
}
