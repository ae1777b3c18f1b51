package cluster

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
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

		fetch := func(url string) (answers map[string]int) {
			out := s.in("client", fmt.Sprintf("for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do wget -q -O - %s; done", url))
			answers = map[string]int{}
			for _, host := range strings.Fields(out) {
				answers[host]++
			}
			return answers
		}
		check := func(name string, answers map[string]int) {
			total := 0
			for _, p := range pods {
				total += answers[p]
			}
			s.see(name+".answers", fmt.Sprint(total))
			s.see(name+".all-pods", fmt.Sprint(len(answers) == len(pods)))
		}
		ip := s.get("service/web", "{.spec.clusterIP}")
		check("cluster-ip", fetch("http://"+ip+"/"))
		check("environment", fetch("http://$WEB_SERVICE_HOST:$WEB_SERVICE_PORT/"))
		check("name", fetch("http://web/"))
		check("full-name", fetch("http://web."+s.ns+".svc.cluster.local/"))
		s.see("resolv.conf", strings.ReplaceAll(s.in("client", "cat /etc/resolv.conf"), s.ns, "NAMESPACE"))
		s.see("api-server", s.in("client", "nc $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT </dev/null && echo open"))
		// A pod that asks for itself by way of its Service.
		s.see("hairpin", fmt.Sprint(len(strings.Fields(s.in(pods[0], fmt.Sprintf("for i in 1 2 3 4 5 6 7 8; do wget -q -O - http://%s/; done", ip))))))

		node := s.get("nodes", "{.items[0].status.addresses[?(@.type==\"InternalIP\")].address}")
		port := s.get("service/outside", "{.spec.ports[0].nodePort}")
		check("node-port-from-a-pod", fetch("http://"+node+":"+port+"/"))
		answers := map[string]int{}
		web := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		for range 16 {
			resp, err := web.Get("http://" + node + ":" + port + "/")
			if err != nil {
				s.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			answers[strings.TrimSpace(string(body))]++
		}
		check("node-port-from-outside", answers)
	}, "vnet")
}
