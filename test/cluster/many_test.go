package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"krun.dev/krunpod/sandbox"
)

// manyEnv is how many pods start together; the default suits an emulated node of one virtual CPU.
const (
	manyEnv     = "KRUNPOD_CLUSTER_PODS"
	manyDefault = 10
)

// manyReport is out/many-pods.json.
type manyReport struct {
	Pods         int         `json:"pods"`
	ReadySeconds float64     `json:"readySeconds"`
	Stages       []manyStage `json:"stages"`
}

// manyStage is how long a stage of a start took, over all pods.
type manyStage struct {
	Name     string  `json:"name"`
	MedianMs float64 `json:"medianMs"`
	WorstMs  float64 `json:"worstMs"`
}

func (r manyReport) write(t *testing.T) {
	data, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(os.Getenv(enableEnv), "out/many-pods.json"), data, 0o644)
	}
	if err != nil {
		t.Error(err)
	}
}

// stages reads the timelines of all microVMs that run on the side's node.
func (s *side) stages() (all []manyStage) {
	s.Helper()
	took := map[string][]float64{}
	var names []string
	timelines := json.NewDecoder(strings.NewReader(s.hackNode(s.node, "exec", "--", "sh", "-c", "cat /run/krunpod/k8s.io/*/timeline.json")))
	for {
		var record sandbox.Record
		err := timelines.Decode(&record)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			s.Fatal(err)
		}
		before := int64(0)
		for _, st := range record.Stages {
			name := st.Name
			if words := strings.Fields(name); words[0] == "container" {
				name = "container " + words[len(words)-1] // without its id
			}
			if took[name] == nil {
				names = append(names, name)
			}
			took[name] = append(took[name], float64(st.At-before)/1000)
			before = st.At
		}
	}
	for _, name := range names {
		slices.Sort(took[name])
		all = append(all, manyStage{name, took[name][len(took[name])/2], took[name][len(took[name])-1]})
	}
	return all
}

// Pods that are started together on one node all come up, and are gone together.
func manyPodsAtOnce(s *side) {
	many := manyDefault
	if text := os.Getenv(manyEnv); text != "" {
		var err error
		if many, err = strconv.Atoi(text); err != nil {
			s.Fatalf("%s: %v", manyEnv, err)
		}
	}
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
	s.must("rollout", "status", "deployment/many", "--timeout=15m")
	report := manyReport{Pods: many, ReadySeconds: time.Since(began).Seconds(), Stages: s.stages()}
	s.Logf("%d pods were ready after %.0f s", many, report.ReadySeconds)
	for _, st := range report.Stages {
		s.Logf("%-24s median %8.0f ms, worst %8.0f ms", st.Name, st.MedianMs, st.WorstMs)
	}
	report.write(s.T)
	if got := strings.Fields(s.get("pods", "{.items[*].status.containerStatuses[0].restartCount}")); len(got) != many || strings.Trim(strings.Join(got, ""), "0") != "" {
		s.Errorf("restarts of each: %v", got)
	}
	addresses := map[string]bool{}
	for _, ip := range strings.Fields(s.get("pods", "{.items[*].status.podIP}")) {
		addresses[ip] = true
	}
	if len(addresses) != many {
		s.Errorf("%d pods have %d addresses", many, len(addresses))
	}
}
