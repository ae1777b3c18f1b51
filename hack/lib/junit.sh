# shellcheck shell=bash
# Counting what a JUnit file reports. To be sourced.

# junit_count FILE: prints "PASSED FAILED SKIPPED"; a file that is not there counts nothing.
junit_count() {
	[[ -f $1 ]] || { echo 0 0 0 && return; }
	local all failed skipped
	all=$(grep -c '<testcase' "$1" || true)
	failed=$(grep -c '<failure\|<error' "$1" || true)
	skipped=$(grep -c '<skipped' "$1" || true)
	echo "$((all - failed - skipped)) $failed $skipped"
}

# junit_passed FILE: the tests that passed, without their subtests, sorted.
junit_passed() { sed -n 's/.*<testcase.* name="\([^"\/]*\)" .*<\/testcase>$/\1/p' "$1" | sort; }
