# shellcheck shell=bash
# bin/metrics-server: what kubectl top asks, for the test cluster.
versions() { echo METRICS_SERVER_VERSION; }

build() {
	module_copy sigs.k8s.io/metrics-server "$(pin METRICS_SERVER_VERSION)" "$1/src"
	CGO_ENABLED=0 module_build "$1/src" "$1/bin" -ldflags "-s -w" ./cmd/metrics-server
	rm -rf "$1/src"
	"$1/bin/metrics-server" --version
}
