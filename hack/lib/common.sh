# shellcheck shell=bash
# Shared by all scripts under hack/: places, messages, stages with their time. To be sourced.

set -euo pipefail
shopt -s inherit_errexit

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
CACHE=${KRUNPOD_CACHE:-$HOME/.cache/krunpod}
OUT=$REPO/out
export REPO CACHE OUT
mkdir -p "$CACHE"

# Without the paths of this machine all that is built of Go is the same wherever it is built, and packages are compiled once for
# programs and for tests.
if [[ ${GOFLAGS:-} != *-trimpath* ]]; then export GOFLAGS="${GOFLAGS:-} -trimpath -buildvcs=false"; fi

# go_with_memory COMMAND...: go with a compiler that leaves its garbage where it is: a quarter of its time (k8s.io/api: 48 s of processor
# time instead of 63).
go_with_memory() { GOGC=400 go "$@"; }

# say prints one line of progress; it goes to stderr, since stdout is what a script answers.
say() { printf '%s %s\n' "$(date +%H:%M:%S)" "$*" >&2; }

# die says what went wrong and what to do, and ends the script.
die() {
	printf '%s: %s\n' "$(basename "$0")" "$*" >&2
	exit 1
}

# warn says what must be seen whatever comes of the rest, also out of a stage that ends well.
warn() { say "WARNING: $*"; }

# stage NAME COMMAND...: runs the command, says what begins, and how long it took. Its output goes to a log that is
# shown only on failure, but for its warnings, or straight through with V=1. Never in a condition: bash ignores
# errexit in all that a || or an if surrounds, in functions and subshells too.
stage() {
	local name=$1 log begin=$SECONDS rc=0
	shift
	(set -e; false; :) &
	if wait $!; then die "stage $name is part of a condition, where all failures but its last command's are lost: use attempt"; fi
	say "$name ..."
	log=$(mktemp)
	if [[ -n ${V:-} ]]; then
		(set -e && "$@") >&2 &
	else
		(set -e && "$@") >"$log" 2>&1 &
	fi
	wait $! || rc=$?
	if ((rc)); then tail -n 60 "$log" >&2; else grep -E '^[0-9:]{8} WARNING: ' "$log" >&2 || true; fi
	rm -f "$log"
	if ((rc)); then
		say "$name: failed after $((SECONDS - begin)) s (exit $rc)"
		return "$rc"
	fi
	say "$name: done in $((SECONDS - begin)) s"
}

# attempt NAME COMMAND...: a stage whose failure does not end the script, but makes its variable rc 1.
attempt() {
	local result
	set +e
	stage "$@"
	result=$?
	set -e
	if ((result)); then rc=1; fi
}

# usage FILE: prints the comment block at the head of a script, which is its --help.
usage() { sed -n '2,/^[^#]/{/^#/!d;s/^# \{0,1\}//;p}' "$1"; }

# pin FUNCTION VARIABLE: the value of one line of versions.env.
pin() {
	local value
	value=$(sed -n "s/^$1=//p" "$REPO/versions.env")
	printf '%s\n' "$value"
}

# as_root: refuses early with a reason instead of failing half-way.
as_root() { ((EUID == 0)) || die "needs root ($1): run it as root"; }
