# shellcheck shell=bash
# The OCI images of the tests' pods as one archive: images.tar (test/images says what is in them).
versions() { echo DEBIAN_SUITE; }

inputs() { find "$REPO/test/images" -name '*.go' ! -name '*_test.go' -print0 | sort -z | xargs -0 cat; }

build() {
	apt_private_update
	(cd "$REPO" && APT_CONFIG=$APT_DIR/apt.conf CGO_ENABLED=0 go run ./test/images -out "$1/images.tar")
}
