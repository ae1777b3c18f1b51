# shellcheck shell=bash
# bin/kube-network-policies: what makes NetworkPolicies hold in the test cluster, for the CNI's bridge plugin does not.
versions() { echo KUBE_NETWORK_POLICIES_VERSION; }

build() {
	module_copy sigs.k8s.io/kube-network-policies "$(pin KUBE_NETWORK_POLICIES_VERSION)" "$1/src"
	mv "$1/src/cmd" "$1/src/kube-network-policies"
	CGO_ENABLED=0 module_build "$1/src" "$1/bin" -ldflags "-s -w" ./kube-network-policies
	rm -rf "$1/src"
}
