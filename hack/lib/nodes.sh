# shellcheck shell=bash
# The nodes that a run of tests takes, and gives back. To be sourced after common.sh.

# NODES: which nodes to run on, "1,2" unless the caller says otherwise; NODE is one alone.
NODES=${NODES:-${NODE:-1,2}}

# borrow_nodes: takes down at the end of the script those of $NODES that are not up now. KEEP=1 leaves them.
borrow_nodes() {
	local n
	borrowed=()
	for n in ${NODES//,/ }; do
		if [[ $("$REPO/hack/node" -n "$n" status || true) == down ]]; then borrowed+=("$n"); fi
	done
	trap return_nodes EXIT
}

return_nodes() {
	local n
	[[ -z ${KEEP:-} ]] || return 0
	for n in "${borrowed[@]}"; do "$REPO/hack/node" -n "$n" down || true; done
}
