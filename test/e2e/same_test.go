package e2e

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/test/compare"
	"krun.dev/krunpod/test/testpod"
)

// The tests of the names TestSame… run the same pods under runc and under Krunpod, and compare what is seen of them.

// differences is the table of those that have a reason; docs/testing.md says how to read it.
//
//go:embed differences.txt
var differences string

const runc = "runc"

// side is one of the runtimes that are compared, and what was seen under it.
type side struct {
	*node
	handler string
	scope   string
	seen    compare.Seen
	// names are pairs: what differs from pod to pod, such as ids, and what to call it.
	names []string
}

// compareWithRunc calls look under runc and under other handlers, and fails for each difference in what it saw that is
// not in the table, and for each of the table that is not there. It must see at least so many things: two sides that saw
// nothing are the same.
func compareWithRunc(t *testing.T, scope string, least int, look func(*side), handlers ...string) {
	t.Helper()
	n := newNodeFor(t, 9*time.Minute)
	table, err := compare.Parse(differences)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]compare.Seen{}
	for _, h := range append([]string{runc}, handlers...) {
		s := &side{node: n, handler: h, scope: scope, seen: compare.Seen{}}
		look(s)
		seen[h] = s.seen
	}
	first := seen[runc]
	delete(seen, runc)
	unknown, stale := table.Of(scope).Check(first, seen)
	for _, d := range unknown {
		t.Errorf("not as under runc, and not in differences.txt: %s", d)
	}
	for _, l := range stale {
		t.Errorf("in differences.txt, and not seen: %s", l)
	}
	if len(first) < least {
		t.Errorf("only %d things were seen under %s, want at least %d", len(first), scope, least)
	}
	t.Logf("%d things compared under %s", len(first), scope)
}

// see records an observation. Keys are paths; the scope goes before.
func (s *side) see(key, value string) {
	named := strings.NewReplacer(s.names...)
	s.seen[s.scope+"/"+named.Replace(key)] = named.Replace(value)
}

// seeError records whether something was possible, the class of the error, which programs go by, and its end: what comes
// before are the callers.
func (s *side) seeError(key string, err error) {
	text := "ok"
	if err != nil {
		text = err.Error()
		text = status.Code(err).String() + ": " + text[lastColon(text):]
	}
	s.see(key, text)
}

// lastColon is where the last part of an error begins.
func lastColon(text string) int {
	if i := strings.LastIndex(text, ": "); i >= 0 {
		return i + len(": ")
	}
	return 0
}

func (s *side) name(what, as string) {
	if what != "" {
		s.names = append(s.names, what, as)
	}
}

// seeMessage records every field of a message that is set, by its path.
func (s *side) seeMessage(prefix string, m proto.Message) {
	s.Helper()
	data, err := protojson.Marshal(m)
	if err != nil {
		s.Fatal(err)
	}
	var fields any
	if err := json.Unmarshal(data, &fields); err != nil {
		s.Fatal(err)
	}
	s.seeFields(prefix, fields)
}

// nanoseconds is a time of this century as CRI has it, dateTime one of a protobuf.
var (
	nanoseconds = regexp.MustCompile(`^[1-4][0-9]{18}$`)
	dateTime    = regexp.MustCompile(`^20[0-9]{2}-.*Z$`)
)

func (s *side) seeFields(path string, value any) {
	switch v := value.(type) {
	case map[string]any:
		for name, field := range v {
			s.seeFields(path+"."+name, field)
		}
	case []any:
		for i, field := range v {
			s.seeFields(fmt.Sprint(path, ".", i), field)
		}
	default:
		text := fmt.Sprint(v)
		if nanoseconds.MatchString(text) || dateTime.MatchString(text) {
			text = "a time"
		}
		s.see(path, text)
	}
}

// startPod runs a pod under the side's runtime.
func (s *side) startPod(change ...func(*runtime.PodSandboxConfig)) *testpod.Pod {
	s.Helper()
	p := s.podOf(s.handler, change...)
	ip, err := p.IP(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	s.name(p.ID, "POD")
	s.name(p.Config.LogDirectory, "LOGS")
	s.name(p.Config.Metadata.Uid, "NAME")
	s.name(ip, "IPv4")
	for i, a := range s.status(p).GetNetwork().GetAdditionalIps() {
		s.name(a.Ip, fmt.Sprint("IP-", i+2))
	}
	return p
}

func (s *side) status(p *testpod.Pod) *runtime.PodSandboxStatus {
	s.Helper()
	r, err := s.cri.Runtime.PodSandboxStatus(s.ctx, &runtime.PodSandboxStatusRequest{PodSandboxId: p.ID})
	if err != nil {
		s.Fatal(err)
	}
	return r.Status
}
