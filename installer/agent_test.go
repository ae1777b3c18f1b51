package installer

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"krun.dev/krunpod/installer/kube"
)

// apiServer keeps the metadata of one node, one pod and the events, as far as the installer asks for them.
type apiServer struct {
	mu     sync.Mutex
	node   kube.Meta
	pod    string
	events []string
	// silent nodes are others with an installation: one that is not ready, and one without an installer.
	silent []*kube.Meta
	// failing is how many changes of a node fail.
	failing int
}

// object is a node as the API has it.
func object(m kube.Meta, ready string) any {
	return map[string]any{"metadata": m, "status": map[string]any{"conditions": []any{
		map[string]string{"type": "MemoryPressure", "status": "False"}, map[string]string{"type": "Ready", "status": ready}}}}
}

func (s *apiServer) nodes() []any {
	all := []any{object(s.node, "True")}
	for _, m := range s.silent {
		ready := "True"
		if m.Name == "dead" {
			ready = "Unknown"
		}
		all = append(all, object(*m, ready))
	}
	return all
}

// named is one of the nodes, nil if there is none.
func (s *apiServer) named(name string) *kube.Meta {
	if name == "a" {
		return &s.node
	}
	for _, m := range s.silent {
		if m.Name == name {
			return m
		}
	}
	return nil
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	reply := func(v any) { _ = json.NewEncoder(w).Encode(v) }
	name, ofNode := strings.CutPrefix(r.URL.Path, "/api/v1/nodes/")
	node := s.named(name)
	switch {
	case r.Header.Get("Authorization") != "Bearer t":
		http.Error(w, `{"message":"who?"}`, http.StatusUnauthorized)
	case r.Method == http.MethodPatch && ofNode && s.failing > 0:
		s.failing--
		http.Error(w, `{"message":"the API server starts"}`, http.StatusServiceUnavailable)
	case r.Method == http.MethodPatch && ofNode && node != nil:
		var p struct {
			Metadata map[string]map[string]*string
		}
		if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
			http.Error(w, `{"message":"no JSON"}`, http.StatusBadRequest)
			return
		}
		merge(node.Labels, p.Metadata, "labels")
		merge(node.Annotations, p.Metadata, "annotations")
	case r.Method == http.MethodGet && r.URL.Path == "/api/v1/nodes/a":
		reply(object(s.node, "True"))
	case r.URL.Path == "/api/v1/nodes":
		reply(map[string]any{"items": s.nodes()})
	case r.URL.Path == "/api/v1/namespaces/krunpod/pods" && r.URL.Query().Get("labelSelector") == "installers=these":
		// One whose pod has ended, or cannot start, has no installer.
		installer := func(node, phase, state string) any {
			return map[string]any{"spec": map[string]string{"nodeName": node}, "status": map[string]any{"phase": phase,
				"containerStatuses": []any{map[string]any{"state": map[string]any{state: map[string]any{}}}}}}
		}
		reply(map[string]any{"items": []any{installer("a", "Running", "running"), installer("dead", "Running", "running"),
			installer("deselected", "Failed", "terminated"), installer("imageless", "Pending", "waiting"), installer("crashing", "Running", "waiting")}})
	case r.URL.Path == "/api/v1/pods" && r.URL.Query().Get("continue") == "":
		// The pod is on the second page.
		reply(map[string]any{"metadata": map[string]string{"continue": "2"}, "items": []any{}})
	case r.URL.Path == "/api/v1/pods":
		reply(map[string]any{"items": []any{map[string]any{
			"metadata": map[string]string{"namespace": "default", "name": "web"},
			"spec":     map[string]string{"runtimeClassName": s.pod}}}})
	case r.Method == http.MethodPost && r.URL.Path == "/api/v1/namespaces/default/events":
		var e struct{ Reason, Message string }
		_ = json.NewDecoder(r.Body).Decode(&e)
		s.events = append(s.events, e.Reason)
		w.WriteHeader(http.StatusCreated)
	default:
		http.Error(w, `{"message":"forbidden"}`, http.StatusForbidden)
	}
}

// merge is a JSON merge patch of one field: null removes all of it.
func merge(into map[string]string, metadata map[string]map[string]*string, field string) {
	patch, named := metadata[field]
	if named && patch == nil {
		clear(into)
	}
	for k, v := range patch {
		if v == nil {
			delete(into, k)
		} else {
			into[k] = *v
		}
	}
}

func (s *apiServer) seen() (labels, annotations map[string]string, events string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.node.Labels), maps.Clone(s.node.Annotations), strings.Join(s.events, " ")
}

// startAgent runs an agent on a node of files and returns when it has settled.
func startAgent(t *testing.T, n *node, before ...func(*apiServer)) (*apiServer, *kube.Client, *Installer) {
	t.Helper()
	api := &apiServer{node: kube.Meta{Name: "a", Labels: map[string]string{"mine": "1"}, Annotations: map[string]string{"mine": "1"}}}
	for _, f := range before {
		f(api)
	}
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	client := &kube.Client{Base: server.URL, HTTP: server.Client(), Token: func() (string, error) { return "t", nil }, Namespace: "krunpod"}
	i := n.installer(t, Layout{})
	n.listen(t, i)
	settled := make(chan struct{}, 1)
	agent := Agent{Installer: i, Kube: client, Node: "a", Poll: 10 * time.Millisecond, Retry: 50 * time.Millisecond,
		Settled: func() error {
			select {
			case settled <- struct{}{}:
			default:
			}
			return nil
		}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = agent.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	select {
	case <-settled:
	case <-time.After(30 * time.Second):
		t.Fatal("the agent does not decide about its node")
	}
	return api, client, i
}

// removal is one of pods of a RuntimeClass.
func removal(client *kube.Client, runtimeClass string) *Removal {
	return &Removal{Kube: client, RuntimeClass: runtimeClass, Installers: "installers=these"}
}

// until waits for what the agent does by itself.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited for " + what)
		}
	}
}

func TestNodeIsLabelledWhenReadyAndCleanAfterRetire(t *testing.T) {
	n := newNode(t, map[string]string{"/etc/containerd/config.toml": v3Config})
	api, client, i := startAgent(t, n)
	labels, annotations, events := api.seen()
	if labels[LabelRuntime] != "ready" || annotations[AnnotationVersion] == "" || events != "KrunReady" {
		t.Fatalf("%v %v %s", labels, annotations, events)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	api.mu.Lock()
	api.pod = "krun"
	api.mu.Unlock()
	if err := removal(client, "krun").Run(ctx); err == nil || !strings.Contains(err.Error(), "default/web") || !i.Host.exists("/opt/krunpod") {
		t.Fatalf("with a pod: %v", err)
	}
	if err := removal(client, "other").Run(ctx); err != nil {
		t.Fatal(err)
	}
	labels, annotations, events = api.seen()
	if labels["mine"] != "1" || len(labels) != 1 || annotations["mine"] != "1" || len(annotations) != 1 || i.Host.exists("/opt/krunpod") || n.read("/etc/containerd/config.toml") != v3Config {
		t.Errorf("left: %v %v %s", labels, annotations, events)
	}
}

func TestRemovalWaitsForAnInstallationThatIsUnderWay(t *testing.T) {
	n := newNode(t, map[string]string{"/etc/containerd/config.toml": v3Config})
	var during string
	api, _, _ := startAgent(t, n, func(api *apiServer) {
		n.checking = func() {
			_, annotations, _ := api.seen()
			during = annotations[AnnotationVersion]
		}
	})
	if _, annotations, _ := api.seen(); during != underWay || annotations[AnnotationVersion] == underWay {
		t.Errorf("%q while it installed, %q afterwards", during, annotations[AnnotationVersion])
	}
}

func TestNodeThatCannotRunPodsSaysWhyAndHasNoLabel(t *testing.T) {
	n := newNode(t, map[string]string{"/etc/containerd/config.toml": v3Config})
	n.notReady = true
	api, _, _ := startAgent(t, n)
	labels, annotations, events := api.seen()
	if labels[LabelRuntime] != "" || annotations[AnnotationReason] != "kvm: no /dev/kvm; load kvm" {
		t.Errorf("%v %v", labels, annotations)
	}
	if events != "KrunNotPossible" {
		t.Errorf("events: %s", events)
	}
}

func TestRetireThatGivesUpTakesItsRequestsBack(t *testing.T) {
	n := newNode(t, map[string]string{"/etc/containerd/config.toml": v3Config})
	n.pods = `[{"id":"abc","alive":true}]`
	api, client, i := startAgent(t, n)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := removal(client, "krun").Run(ctx); err == nil || !strings.Contains(err.Error(), "still installed on a") {
		t.Fatal(err)
	}
	_, annotations, events := api.seen()
	if annotations[AnnotationUninstall] != "" || !strings.Contains(events, "KrunUninstallFailed") || !i.Host.exists("/opt/krunpod") {
		t.Errorf("%v %s", annotations, events)
	}
	// While it was asked, no new pods came; now they do again, and at once, not with the next check a day later.
	until(t, "the label", func() bool { labels, _, _ := api.seen(); return labels[LabelRuntime] == labelReady })
}

func TestNodeKeepsPodsAwayWhileItIsAskedToUninstall(t *testing.T) {
	n := newNode(t, map[string]string{"/etc/containerd/config.toml": v3Config})
	n.pods = `[{"id":"abc","alive":true}]`
	api, _, _ := startAgent(t, n)
	api.mu.Lock()
	api.node.Annotations[AnnotationUninstall] = "requested"
	api.mu.Unlock()
	until(t, "the refusal", func() bool { _, _, events := api.seen(); return strings.Contains(events, "KrunUninstallFailed") })
	if labels, _, _ := api.seen(); labels[LabelRuntime] != labelNotReady {
		t.Errorf("labels %v: metrics of the pods that run need one, and new pods must not come", labels)
	}
}

func TestNodeThatBecomesAbleToRunPodsIsNoticed(t *testing.T) {
	n := newNode(t, map[string]string{"/etc/containerd/config.toml": v3Config})
	var able atomic.Bool
	n.checking = func() { n.notReady = !able.Load() }
	api, _, _ := startAgent(t, n)
	able.Store(true)
	until(t, "the event", func() bool { _, _, events := api.seen(); return strings.HasSuffix(events, "KrunReady") })
	if labels, annotations, events := api.seen(); labels[LabelRuntime] != labelReady || annotations[AnnotationReason] != "" || events != "KrunNotPossible KrunReady" {
		t.Errorf("%v, %v, events %s: one each", labels, annotations, events)
	}
}

func TestNodeThatWasReadyStaysSoThroughASlowCheck(t *testing.T) {
	n := newNode(t, map[string]string{"/etc/containerd/config.toml": v3Config})
	checks := 0
	seen := ""
	var api *apiServer
	n.checking = func() {
		labels, _, _ := api.seen()
		seen += labels[LabelRuntime] + " "
		checks++
		n.slow = checks < 4
	}
	_, _, _ = startAgent(t, n, func(s *apiServer) {
		api = s
		s.node.Labels[LabelRuntime] = labelReady
	})
	until(t, "a check that is in time", func() bool { _, _, events := api.seen(); return strings.HasSuffix(events, "KrunReady") })
	// After the third in a row it is not taken for ready any more.
	if want := "ready ready ready not-ready "; seen != want {
		t.Errorf("before each check the node was %q, want %q", seen, want)
	}
}

// A version that does not work must not go on to the next node.
func TestRolloutWaitsAtANodeThatItMadeUnable(t *testing.T) {
	for _, failure := range []string{"not ready", "slow", "failed"} {
		n := newNode(t, map[string]string{"/etc/containerd/config.toml": v3Config})
		checks := 0
		n.checking = func() {
			checks++
			broken := checks <= maxUndecided+1
			n.notReady, n.slow, n.broken = broken && failure == "not ready", broken && failure == "slow", broken && failure == "failed"
		}
		_, _, _ = startAgent(t, n, func(s *apiServer) { s.node.Labels[LabelRuntime] = labelReady })
		if checks <= maxUndecided+1 {
			t.Errorf("%s: the pod was ready after %d checks", failure, checks)
		}
	}
}

func TestWhatSomebodyElseTakesFromANodeThatIsReadyIsPutBack(t *testing.T) {
	n := newNode(t, map[string]string{"/etc/containerd/config.toml": v3Config})
	api, _, _ := startAgent(t, n)
	ready := func() bool {
		labels, annotations, _ := api.seen()
		return labels[LabelRuntime] == labelReady && annotations[AnnotationVersion] != ""
	}
	for what, take := range map[string]func(){
		"label":      func() { delete(api.node.Labels, LabelRuntime) },
		"annotation": func() { delete(api.node.Annotations, AnnotationVersion) },
		"import":     func() { n.write("/etc/containerd/config.toml", v3Config) },
	} {
		api.mu.Lock()
		take()
		api.mu.Unlock()
		until(t, "the "+what, func() bool {
			return ready() && strings.Contains(n.read("/etc/containerd/config.toml"), "10-krunpod")
		})
	}
}

func TestFailedRequestsAreRepeatedSoon(t *testing.T) {
	n := newNode(t, map[string]string{"/etc/containerd/config.toml": v3Config})
	checks := 0
	n.checking = func() { checks++ }
	api, _, _ := startAgent(t, n, func(s *apiServer) { s.failing = 3 })
	if labels, _, _ := api.seen(); labels[LabelRuntime] != labelReady || checks != 1 {
		t.Errorf("%v after %d checks", labels, checks)
	}
}

func TestRemovalNamesTheNodesThatCannotAnswerAndCanDoWithoutThem(t *testing.T) {
	n := newNode(t, map[string]string{"/etc/containerd/config.toml": v3Config})
	api, client, _ := startAgent(t, n, func(s *apiServer) {
		for _, name := range []string{"dead", "deselected", "imageless", "crashing"} {
			s.silent = append(s.silent, &kube.Meta{Name: name, Labels: map[string]string{LabelRuntime: labelReady}, Annotations: map[string]string{AnnotationVersion: "1"}})
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	err := removal(client, "krun").Run(ctx)
	if err == nil || !strings.Contains(err.Error(), "dead (the node is not ready), deselected (no installer runs there), imageless (no installer runs there), crashing (no installer runs there)") {
		t.Fatal(err)
	}
	forced := removal(client, "krun")
	forced.Force = true
	if err := forced.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	api.mu.Lock()
	defer api.mu.Unlock()
	for _, m := range api.silent {
		// With its request, an installation that is made later would remove itself.
		if len(m.Labels) > 0 || len(m.Annotations) != 1 || m.Annotations[AnnotationVersion] == "" {
			t.Errorf("%s has %v, %v", m.Name, m.Labels, m.Annotations)
		}
	}
	if s := api.node; s.Labels[LabelRuntime] != "" || s.Annotations[AnnotationVersion] != "" {
		t.Errorf("the node that answers has %v, %v", s.Labels, s.Annotations)
	}
}
