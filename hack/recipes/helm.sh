# shellcheck shell=bash
# bin/helm3 and bin/helm4: Helm of both generations, static.
versions() { echo HELM3_VERSION HELM4_VERSION; }

build() {
	local n version
	for n in 3 4; do
		version=$(pin "HELM${n}_VERSION")
		module_copy "helm.sh/helm/v$n" "$version" "$1/src"
		CGO_ENABLED=0 module_build "$1/src" "$1/out" -ldflags "-s -w -X helm.sh/helm/v$n/internal/version.version=$version" ./cmd/helm
		mkdir -p "$1/bin"
		mv "$1/out/helm" "$1/bin/helm$n"
		rm -rf "$1/src" "$1/out"
	done
	"$1/bin/helm3" version --short
	"$1/bin/helm4" version --short
}
