# shellcheck shell=bash
# bin/runc, static, with seccomp.
versions() { echo RUNC_VERSION; }

build() {
	local version
	version=$(pin RUNC_VERSION)
	module_copy github.com/opencontainers/runc "$version" "$1/src"
	CGO_ENABLED=1 module_build "$1/src" "$1/bin" -tags seccomp,netgo,osusergo \
		-ldflags "-s -w -extldflags -static -X main.version=${version#v}" .
	rm -rf "$1/src"
	"$1/bin/runc" --version
}
