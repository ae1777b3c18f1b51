# shellcheck shell=bash
# What critest pulls: images.tar, and bin/registry, which serves it on the node's loopback.
versions() { echo DEBIAN_SUITE; }

inputs() { find "$REPO/test/images" -name '*.go' ! -name '*_test.go' -print0 | sort -z | xargs -0 cat; }

build() {
	apt_private_update
	(
		cd "$REPO" || exit
		APT_CONFIG=$APT_DIR/apt.conf CGO_ENABLED=0 go run ./test/images -conformance -out "$1/images.tar"
		CGO_ENABLED=0 go build -ldflags '-s -w' -o "$1/bin/" ./test/images/registry
	)
}
