# shellcheck shell=bash
# bin/: what the test cluster has beside Kubernetes, and Helm of both generations, static. One module, hack/addons, has them
# all: what several ask for, above all Kubernetes' clients, is compiled once, in the newest of the versions that they name.
inputs() { cat "$REPO"/hack/addons/{go.mod,go.sum,coredns/main.go}; }

build() {
	local n helm
	addon "$1/bin/coredns" ./coredns
	addon "$1/bin/metrics-server" sigs.k8s.io/metrics-server/cmd/metrics-server
	addon "$1/bin/kube-network-policies" sigs.k8s.io/kube-network-policies/cmd
	for n in 3 4; do
		helm=helm.sh/helm/v$n
		addon "$1/bin/helm$n" "$helm/cmd/helm" "-X $helm/internal/version.version=$(module_go "$REPO/hack/addons" list -m -f '{{.Version}}' "$helm")"
	done
	"$1/bin/coredns" -version
	"$1/bin/metrics-server" --version
	"$1/bin/helm3" version --short
	"$1/bin/helm4" version --short
}

# addon PROGRAM PACKAGE [LINKER FLAGS]
addon() { CGO_ENABLED=0 module_go "$REPO/hack/addons" build -mod=readonly -o "$1" -ldflags "-s -w ${3:-}" "$2"; }
