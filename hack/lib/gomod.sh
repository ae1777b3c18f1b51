# shellcheck shell=bash
# Building commands of foreign Go modules at a pinned version. To be sourced after common.sh.

# module_copy MODULE VERSION DIR: a writable copy of a module's source, from the module cache (fetched when missing).
# A vendor folder that came with it is removed: the proxy's archives leave parts of it out.
module_copy() {
	local source
	source=$(cd / && GOFLAGS=-mod=mod go mod download -json "$1@$2" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
	[[ -d $source ]] || die "the Go module $1@$2 could not be fetched: is the module proxy reachable (go env GOPROXY)?"
	cp -r "$source" "$3"
	chmod -R u+w "$3"
	rm -rf "$3/vendor"
}

# module_build SOURCE OUT [go build flags and packages]: builds in a copy made by module_copy, stripped, without paths.
module_build() {
	local source=$1 out=$2
	shift 2
	mkdir -p "$out"
	(cd "$source" && GOWORK=off GOFLAGS=-mod=mod go build -trimpath -buildvcs=false -o "$out/" "$@")
}
