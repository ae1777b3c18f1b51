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

# module_go SOURCE COMMAND... [flags and packages]: a command of go that builds, in a module of its own, such as a copy made by module_copy.
module_go() {
	local source=$1
	shift
	(cd "$source" && GOWORK=off GOFLAGS="$GOFLAGS -mod=mod" go_with_memory "$@")
}

# module_build SOURCE OUT [go build flags and packages]: builds programs in such a copy.
module_build() {
	local source=$1 out=$2
	shift 2
	mkdir -p "$out"
	module_go "$source" build -o "$out/" "$@"
}
