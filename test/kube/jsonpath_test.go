package kube

import "testing"

const object = `{"metadata": {"labels": {"krun.dev/runtime": "ready"}}, "status": {"count": 12345678901, "none": [],
	"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}],
	"containers": [{"name": "a[0]", "of": {"exit": 3}}, {"name": "b", "of": {"exit": 0}}]}}`

func TestEvaluate(t *testing.T) {
	for template, want := range map[string]string{
		"":                                     "",
		"text":                                 "text",
		"{.status.count}":                      "12345678901",
		"{.status.missing.deeper}":             "",
		"{.status.missing[0].deeper}":          "",
		"{.status.none[0]}":                    "",
		"{.status.containers[*].name}":         "a[0] b",
		"{.status.containers[1].of}":           `{"exit":0}`,
		`{.metadata.labels.krun\.dev/runtime}`: "ready",
		`{.status.conditions[?(@.type=="Ready")].status}`:                            "True",
		`{.status.conditions[?(@.type=="None")].status}`:                             "",
		`{.status.containers[?(@.of.exit=="0")].name}: {.status.containers[0].name}`: "b: a[0]",
		`{range .status.containers[*]}{.name}={.of.exit}{"\n"}{end}.`:                "a[0]=3\nb=0\n.",
		`{range .status.none[*]}{.name}{end}.`:                                       ".",
	} {
		if got, err := evaluate([]byte(object), template); err != nil || got != want {
			t.Errorf("%s is %q, want %q: %v", template, got, want, err)
		}
	}
	for _, template := range []string{"{.a", "{a}", "{.a[0}", "{.a[x]}", `{.a[?(@.b=="c)]}`, `{"a}`} {
		if got, err := evaluate([]byte(object), template); err == nil {
			t.Errorf("%s is taken, as %q", template, got)
		}
	}
}

func TestPath(t *testing.T) {
	for what, want := range map[string]string{
		"pod/web":       "/api/v1/namespaces/ns/pods/web",
		"pods":          "/api/v1/namespaces/ns/pods",
		"job/a":         "/apis/batch/v1/namespaces/ns/jobs/a",
		"nodes":         "/api/v1/nodes",
		"csinode/node1": "/apis/storage.k8s.io/v1/csinodes/node1",
	} {
		if got, err := path("ns", what); err != nil || got != want {
			t.Errorf("%s is at %s, want %s: %v", what, got, want, err)
		}
	}
	if at, err := path("ns", "pot/web"); err == nil {
		t.Errorf("an unknown kind is at %s", at)
	}
}
