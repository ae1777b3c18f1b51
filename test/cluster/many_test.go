package cluster

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// manyEnv is how many pods start together; the default suits an emulated node of one virtual CPU.
const (
	manyEnv     = "KRUNPOD_CLUSTER_PODS"
	manyDefault = 10
)

// Pods that are started together all come up, and are gone together.
func TestManyPodsAtOnce(t *testing.T) {
	many := manyDefault
	if text := os.Getenv(manyEnv); text != "" {
		var err error
		if many, err = strconv.Atoi(text); err != nil {
			t.Fatalf("%s: %v", manyEnv, err)
		}
	}
	s := newSide(t, "many", "krun")
	s.spread()
	began := time.Now()
	s.apply(fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: many}
spec:
  replicas: %d
  selector: {matchLabels: {app: many}}
  template:
    metadata: {labels: {app: many}}
    spec:
      runtimeClassName: RUNTIME
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: IMAGE, command: [sh, -c, "uname -r; exec sleep 10000"]}]
`, many))
	s.must("rollout", "status", "deployment/many", "--timeout=9m")
	t.Logf("%d pods were ready after %.0f s", many, time.Since(began).Seconds())
	if got := strings.Fields(s.get("pods", "{.items[*].status.containerStatuses[0].restartCount}")); len(got) != many || strings.Trim(strings.Join(got, ""), "0") != "" {
		t.Errorf("restarts of each: %v", got)
	}
	addresses := map[string]bool{}
	for _, ip := range strings.Fields(s.get("pods", "{.items[*].status.podIP}")) {
		addresses[ip] = true
	}
	if len(addresses) != many {
		t.Errorf("%d pods have %d addresses", many, len(addresses))
	}
}
