package cluster

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const webService = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}, annotations: {NETWORK, POLICY}}
    spec:
      runtimeClassName: RUNTIME
      topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}]
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: IMAGE
        command: [sh, -c, "mkdir /www; hostname >/www/index.html; exec httpd -f -p 8080 -h /www"]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 2, timeoutSeconds: 5}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: outside}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
`

// asking asks a URL until so many hosts have answered, each of which has the same chance each time, and prints their names.
const asking = `seen= n=0
for i in $(seq 64); do
	host=$(wget -q -O - %s) || exit 1
	case " $seen " in *" $host "*) ;; *) seen="$seen $host" n=$((n + 1)) ;; esac
	if [ $n = %d ]; then break; fi
done
echo $seen`

// Its pod starts when the Services exist, so that their addresses are in its environment.
const client = `
apiVersion: v1
kind: Pod
metadata: {name: client, annotations: {NETWORK}}
spec:
  runtimeClassName: RUNTIME
  terminationGracePeriodSeconds: 1
  containers: [{name: client, image: IMAGE, command: [sleep, "10000"]}]
`

// Pods reach Services and are reached through them, whichever the other end is.
func TestServices(t *testing.T) {
	under(t, "services", func(s *side) {
		s.spread()
		// The servers of the vnet have a policy too, which lets their callers in, themselves among them.
		policy := ""
		if s.way == "vnet" {
			policy = `krun.dev/network-policy: "allow ingress tcp any 8080; allow egress tcp any 80,8080; deny egress any"`
		}
		end := s.turn()
		s.apply(strings.Replace(webService, "POLICY", policy, 1))
		s.apply(client)
		s.must("rollout", "status", "deployment/web", waiting)
		s.ready("client")
		end()
		pods := strings.Fields(s.get("pods", "{.items[?(@.metadata.labels.app==\"web\")].metadata.name}"))
		s.see("replicas", fmt.Sprint(len(pods)))

		slices.Sort(pods)
		answered := func(name string, hosts []string) {
			if slices.Sort(hosts); !slices.Equal(hosts, pods) {
				s.Errorf("%s: %q answered, not %q", name, hosts, pods)
			}
		}
		check := func(name, url string) {
			answered(name, strings.Fields(s.in("client", fmt.Sprintf(asking, url, len(pods)))))
		}
		ip := s.get("service/web", "{.spec.clusterIP}")
		check("cluster-ip", "http://"+ip+"/")
		check("environment", "http://$WEB_SERVICE_HOST:$WEB_SERVICE_PORT/")
		check("name", "http://web/")
		check("full-name", "http://web."+s.ns+".svc.cluster.local/")
		s.see("resolv.conf", strings.ReplaceAll(s.in("client", "cat /etc/resolv.conf"), s.ns, "NAMESPACE"))
		s.see("api-server", s.in("client", "nc $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT </dev/null && echo open"))
		// A pod that asks for itself by way of its Service.
		s.see("hairpin", s.in(pods[0], fmt.Sprintf("for i in $(seq 64); do host=$(wget -q -O - http://%s/) || exit 1; if [ $host = $HOSTNAME ]; then exec echo its own; fi; done", ip)))

		node := s.get("nodes", "{.items[0].status.addresses[?(@.type==\"InternalIP\")].address}")
		port := s.get("service/outside", "{.spec.ports[0].nodePort}")
		check("node-port-from-a-pod", "http://"+node+":"+port+"/")
		var hosts []string
		for i := 0; i < 64 && len(hosts) < len(pods); i++ {
			host := strings.TrimSuffix(strings.TrimPrefix(s.fetch("http://"+node+":"+port+"/"), "200"), "\n<nil>")
			if !slices.Contains(hosts, host) {
				hosts = append(hosts, host)
			}
		}
		answered("node-port-from-outside", hosts)
	}, "vnet")
}
