# shellcheck shell=bash
# bin/kube: Kubernetes' control plane, kubelet, kube-proxy and kubectl as one static binary, and a link to it for each.
versions() { echo KUBERNETES_VERSION; }

inputs() { cat "$REPO/hack/kubernetes/kube.go.in"; }

build() {
	local version staging name path flags=(-s -w)
	version=$(pin KUBERNETES_VERSION)
	# The parts that are modules of their own, k8s.io/api and so on, are released as v0 with the same minor and patch.
	staging=v0.${version#v1.}
	module_copy k8s.io/kubernetes "$version" "$1/src"
	(
		cd "$1/src" || exit
		sed -i "s|=> ./staging/src/\(k8s.io/[a-z-]*\)$|=> \1 $staging|" go.mod
		mkdir cmd/kube
		cp "$REPO/hack/kubernetes/kube.go.in" cmd/kube/main.go
	)
	for path in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
		flags+=(-X "$path.gitVersion=$version" -X "$path.gitMajor=1" -X "$path.gitMinor=$(cut -d. -f2 <<<"$version")")
	done
	CGO_ENABLED=0 module_build "$1/src" "$1/bin" -ldflags "${flags[*]}" ./cmd/kube
	rm -rf "$1/src"
	for name in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do
		ln -s kube "$1/bin/$name"
	done
	"$1/bin/kubelet" --version
}
