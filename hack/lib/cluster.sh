# shellcheck shell=bash
# The test cluster: the control plane's processes on this machine, the kubelet and kube-proxy on the nodes. To be sourced after
# node.sh by hack/cluster, with STATE, and in NODES the nodes' numbers.

SERVER=${HOST_IP4%/*}
SERVICES=10.96.0.0/16
CONTROL_PLANE=(etcd kube-apiserver kube-controller-manager kube-scheduler coredns metrics-server)
# Seconds that an emulated node may take to become ready.
READY_TIMEOUT=300

# on_node N COMMAND...: with the functions of node.sh for that node.
on_node() { (node_init "$1" && "${@:2}"); }

# on_nodes COMMAND...: for all nodes, beside each other.
on_nodes() {
	local n jobs=() job rc=0
	for n in "${NODES[@]}"; do
		on_node "$n" "$@" &
		jobs+=($!)
	done
	for job in "${jobs[@]}"; do wait "$job" || rc=1; done
	return "$rc"
}

kubernetes() { "$REPO/hack/cached" kubernetes; }

# component_pid NAME: the process of a component of the control plane, if it runs; a recycled pid is not mistaken for it.
component_pid() {
	local pid
	pid=$(cat "$STATE/$1.pid" 2>/dev/null) || return 1
	[[ $(tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | head -n 1) == */"$1" ]] || return 1
	printf '%s\n' "$pid"
}

# component NAME PROGRAM ARG...: starts a component, unless it runs. It must hold no descriptor of this script.
component() {
	local name=$1
	shift
	component_pid "$name" >/dev/null && return
	# ip and setsid become the program, so that $! is its number.
	ip netns exec "$NETNS" setsid "$@" </dev/null >>"$STATE/$name.log" 2>&1 &
	echo $! >"$STATE/$name.pid"
}

control_plane_up() {
	local pki=$STATE/pki bin addons
	bin=$(kubernetes)/bin
	addons=$("$REPO/hack/cached" addons)/bin
	component etcd "$("$REPO/hack/cached" etcd)/bin/etcd" --data-dir "$STATE/etcd" --unsafe-no-fsync \
		--listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
		--listen-peer-urls http://127.0.0.1:2380 --log-level warn
	component kube-apiserver "$bin/kube-apiserver" --etcd-servers http://127.0.0.1:2379 --advertise-address "$SERVER" \
		--service-cluster-ip-range "$SERVICES" --allow-privileged --authorization-mode Node,RBAC \
		--enable-admission-plugins NodeRestriction,PodNodeSelector --client-ca-file "$pki/ca.crt" \
		--tls-cert-file "$pki/apiserver.crt" --tls-private-key-file "$pki/apiserver.key" \
		--kubelet-certificate-authority "$pki/ca.crt" --kubelet-preferred-address-types InternalIP \
		--kubelet-client-certificate "$pki/apiserver-kubelet.crt" --kubelet-client-key "$pki/apiserver-kubelet.key" \
		--service-account-issuer https://kubernetes.default.svc --service-account-key-file "$pki/service-account.pub" \
		--service-account-signing-key-file "$pki/service-account.key" --cert-dir "$STATE/run" \
		--requestheader-client-ca-file "$pki/ca.crt" --requestheader-allowed-names front-proxy \
		--requestheader-username-headers X-Remote-User --requestheader-group-headers X-Remote-Group \
		--requestheader-extra-headers-prefix X-Remote-Extra- --enable-aggregator-routing \
		--proxy-client-cert-file "$pki/front-proxy.crt" --proxy-client-key-file "$pki/front-proxy.key"
	component kube-controller-manager "$bin/kube-controller-manager" --kubeconfig "$pki/controller-manager.kubeconfig" \
		--use-service-account-credentials --service-account-private-key-file "$pki/service-account.key" \
		--root-ca-file "$pki/ca.crt" --leader-elect=false --cert-dir "$STATE/run" --bind-address 127.0.0.1
	component kube-scheduler "$bin/kube-scheduler" --kubeconfig "$pki/scheduler.kubeconfig" --leader-elect=false \
		--cert-dir "$STATE/run" --bind-address 127.0.0.1
	KUBECONFIG=$pki/admin.kubeconfig component coredns "$addons/coredns" \
		-conf "$REPO/hack/kubernetes/Corefile"
	component metrics-server "$addons/metrics-server" --kubeconfig "$pki/admin.kubeconfig" \
		--authentication-kubeconfig "$pki/admin.kubeconfig" --authorization-kubeconfig "$pki/admin.kubeconfig" \
		--bind-address "$SERVER" --secure-port 4443 --cert-dir "$STATE/run/metrics-server" --metric-resolution 15s \
		--kubelet-preferred-address-types InternalIP --kubelet-certificate-authority "$pki/ca.crt"
}

# admin ARG...: kubectl as the administrator.
admin() { in_netns "$(kubernetes)/bin/kubectl" --kubeconfig "$STATE/pki/admin.kubeconfig" --request-timeout=30s "$@"; }

# await SECONDS WHAT COMMAND...: repeats the command, which must not hang, until it succeeds.
await() {
	local deadline=$((SECONDS + $1)) what=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		((SECONDS < deadline)) || die "$what: not so in time; see hack/cluster logs, and hack/cluster logs kubelet"
		sleep 1
	done
}

node_files() {
	local work=$1 name
	mkdir -p "$work/pki" "$work/account"
	cp "$REPO"/hack/kubernetes/{start,kubelet.yaml,kube-proxy.yaml} "$work/"
	cp "$STATE/pki/ca.crt" "$work/pki/"
	for name in crt key; do cp "$STATE/pki/kubelet-node$NODE.$name" "$work/pki/kubelet.$name"; done
	cp "$STATE/pki/node$NODE.kubeconfig" "$work/pki/kubelet.kubeconfig"
	cp "$STATE/pki/proxy.kubeconfig" "$work/pki/"
	cp "$STATE/pki/ca.crt" "$work/account/"
	admin create token --namespace kube-system --duration 24h network-policies >"$work/account/token"
}

node_prepared() { "$REPO/hack/prepare-node" "$NODE"; }

# send PROGRAM NAME: puts a program into /opt/kubernetes of the node, once: they are large for an emulated network.
send() {
	local size
	size=$(stat -c %s "$1")
	# shellcheck disable=SC2016 # the node's shell's
	[[ $(node_exec sh -c 'stat -c %s "/opt/kubernetes/$1" 2>/dev/null || echo 0' sh "$2") == "$size" ]] || gzip -1 <"$1" | node_exec sh -c \
		'mkdir -p /opt/kubernetes && cd /opt/kubernetes && gzip -d >"$1.new" && chmod 755 "$1.new" && mv "$1.new" "$1"' sh "$2"
}

# node_joins: what Kubernetes needs on the node.
node_joins() {
	local work
	work=$(mktemp -d)
	# shellcheck disable=SC2064 # now, not later
	trap "rm -rf '$work'" RETURN
	node_files "$work"
	send "$(kubernetes)/bin/kube" kube
	send "$("$REPO/hack/cached" addons)/bin/kube-network-policies" kube-network-policies
	node_exec sh -c 'cd /opt/kubernetes && ln -sf kube kubelet && ln -sf kube kube-proxy'
	tar -C "$work" --owner=0 --group=0 -cf - . | node_exec sh -c 'mkdir -p /etc/kubernetes && tar -C /etc/kubernetes -xf -'
	node_exec /etc/kubernetes/start
}

# node_certificates: what test/pki is to make for the node.
node_certificates() { echo "node$NODE=$NODE_IP"; }

make_pki() {
	local n wanted=()
	for n in "${NODES[@]}"; do wanted+=("$(on_node "$n" node_certificates)"); done
	mkdir -m 700 "$STATE/pki.new"
	(cd "$REPO" && go run ./test/pki "$STATE/pki.new" "$SERVER" "${wanted[@]}")
	mv "$STATE/pki.new" "$STATE/pki"
}

cluster_up() {
	as_root "network namespaces and nodes"
	local begin=$SECONDS
	mkdir -p "$STATE/run"
	(IFS=, && echo "${NODES[*]}") >"$STATE/nodes"
	"$REPO/hack/cached" etcd >/dev/null
	"$REPO/hack/cached" addons >/dev/null
	kubernetes >/dev/null
	"$REPO/hack/build"
	on_nodes node_prepared
	rm -rf "$STATE/pki.new"
	[[ -d $STATE/pki ]] || stage "certificates" make_pki
	say "control plane ..."
	control_plane_up
	await 120 "the API server answers" admin get --raw /readyz
	admin apply -f "$REPO/hack/kubernetes/manifests" >&2
	stage "kubelet, kube-proxy, kube-network-policies" on_nodes node_joins
	await "$READY_TIMEOUT" "the nodes are ready" admin wait --for=condition=Ready "${NODES[@]/#/node/node}" --timeout=20s
	await 60 "the metrics server answers" admin get --raw /apis/metrics.k8s.io/v1beta1
	await 60 "the default service account is there" admin get serviceaccount default
	say "the cluster is up in $((SECONDS - begin)) s:"
	say "  hack/cluster kubectl get nodes          hack/cluster exec -- k9s"
	say "  pods take runtimeClassName: krun, or runc to compare; image localhost/krunpod/busybox:1"
}

cluster_down() {
	local name pid
	as_root "network namespaces and nodes"
	for name in metrics-server coredns kube-scheduler kube-controller-manager kube-apiserver etcd; do
		if pid=$(component_pid "$name"); then
			kill "$pid"
			for _ in {1..100}; do
				component_pid "$name" >/dev/null || break
				sleep 0.1
			done
			if component_pid "$name" >/dev/null; then kill -9 "$pid"; fi
		fi
	done
	on_nodes node_down
	rm -rf "$STATE"
}

cluster_running() {
	local name
	for name in "${CONTROL_PLANE[@]}"; do
		component_pid "$name" >/dev/null || die "$name does not run: hack/cluster up"
	done
}

cluster_status() {
	local name pid n now rc=0
	for name in "${CONTROL_PLANE[@]}"; do
		if pid=$(component_pid "$name"); then echo "$name: running ($pid)"; else echo "$name: not running" && rc=3; fi
	done
	for n in "${NODES[@]}"; do
		now=$(on_node "$n" node_state)
		echo "node $n: $now"
		[[ $now == ok ]] || rc=3
	done
	if ((rc == 0)); then admin get nodes || rc=3; fi
	exit "$rc"
}

cluster_exec() {
	cluster_running
	export KUBECONFIG=$STATE/pki/admin.kubeconfig
	PATH=$(kubernetes)/bin:$PATH
	exec ip netns exec "$NETNS" "$@"
}

cluster_logs() {
	case ${1:-kube-apiserver} in
	kubelet | kube-proxy | kube-network-policies | containerd) on_node "${2:-${NODES[0]}}" node_exec cat "/var/log/$1.log" ;;
	etcd | coredns | metrics-server | kube-*) cat "$STATE/${1:-kube-apiserver}.log" ;;
	*) die "$1: no such component; see hack/cluster --help" ;;
	esac
}
