package cluster

import (
	"fmt"
	"testing"
)

const guarded = `
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}, annotations: {NETWORK}}
spec:
  runtimeClassName: RUNTIME
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: IMAGE
    command: [sh, -c, "mkdir /www; echo page >/www/index.html; httpd -p 8081 -h /www; exec httpd -f -p 8080 -h /www"]
`

const friends = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friends}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {matchLabels: {role: friend}}}], ports: [{port: 8080}]}]
`

const nothing = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nothing}
spec:
  podSelector: {matchLabels: {role: friend}}
  policyTypes: [Egress]
`

// A NetworkPolicy is kept on the node, outside of the guest: what an engine that knows nothing of microVMs does with it is the same
// for pods that have one, whichever way their frames take.
func TestNetworkPolicy(t *testing.T) {
	under(t, "policy", func(s *side) {
		s.start(guarded+"---"+client, "server", "client")
		ip := s.get("pod/server", "{.status.podIP}")
		get := func(port int) string { return fmt.Sprintf("timeout 10 wget -q -O - http://%s:%d/", ip, port) }
		// An engine hears of a policy a little later.
		opens := func(port int) { s.see(fmt.Sprint("opens.", port), s.in("client", comes(get(port)))) }
		closes := func(port int) { s.in("client", comes("! "+get(port))) }

		opens(8080)
		opens(8081)
		s.apply(friends)
		closes(8080)
		closes(8081)
		s.must("label", "pod", "client", "role=friend")
		opens(8080)
		closes(8081)
		s.apply(nothing)
		closes(8080)
		s.must("delete", "networkpolicy", "friends", "nothing")
		opens(8080)
		opens(8081)
	}, "vnet")
}
