package installer

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
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
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	reply := func(v any) { _ = json.NewEncoder(w).Encode(v) }
	switch {
	case r.Header.Get("Authorization") != "Bearer t":
		http.Error(w, `{"message":"who?"}`, http.StatusUnauthorized)
	case r.Method == http.MethodPatch && r.URL.Path == "/api/v1/nodes/a":
		var p struct {
			Metadata map[string]map[string]*string
		}
		if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
			http.Error(w, `{"message":"no JSON"}`, http.StatusBadRequest)
			return
		}
		merge(s.node.Labels, p.Metadata, "labels")
		merge(s.node.Annotations, p.Metadata, "annotations")
	case r.Method == http.MethodGet && r.URL.Path == "/api/v1/nodes/a":
		reply(map[string]any{"metadata": s.node})
	case r.URL.Path == "/api/v1/nodes":
		reply(map[string]any{"items": []any{map[string]any{"metadata": s.node}}})
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
	client := &kube.Client{Base: server.URL, HTTP: server.Client(), Token: func() (string, error) { return "t", nil }}
	i := n.installer(t, Layout{})
	n.listen(t, i)
	settled := make(chan struct{}, 1)
	agent := Agent{Installer: i, Kube: client, Node: "a", Poll: 10 * time.Millisecond, Settled: func() error { settled <- struct{}{}; return nil }}
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
	if err := Retire(ctx, client, "krun", false); err == nil || !strings.Contains(err.Error(), "default/web") || !i.Host.exists("/opt/krunpod") {
		t.Fatalf("with a pod: %v", err)
	}
	if err := Retire(ctx, client, "other", false); err != nil {
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
	n.pods = `[{"id":"abc"}]`
	api, client, i := startAgent(t, n)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := Retire(ctx, client, "krun", false); err == nil || !strings.Contains(err.Error(), "still installed on a") {
		t.Fatal(err)
	}
	_, annotations, events := api.seen()
	if annotations[AnnotationUninstall] != "" || !strings.Contains(events, "KrunUninstallFailed") || !i.Host.exists("/opt/krunpod") {
		t.Errorf("%v %s", annotations, events)
	}
}
