package cluster

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"krun.dev/krunpod/test/kube"
)

// start applies manifests in the side's turn, and waits until pods of them are ready.
func (s *side) start(manifests string, pods ...string) {
	s.Helper()
	defer s.turn()()
	s.apply(manifests)
	s.ready(pods...)
}

// run is start for a pod that ends; it returns the phase.
func (s *side) run(manifests, pod string) string {
	s.Helper()
	defer s.turn()()
	s.apply(manifests)
	return s.ended(pod)
}

// ready waits until pods are.
func (s *side) ready(pods ...string) {
	s.Helper()
	for _, p := range pods {
		s.is("pod/"+p, "Ready")
	}
}

// begun waits until pods have left the state in which their containers are yet to be made.
func (s *side) begun(pods ...string) {
	s.Helper()
	for _, p := range pods {
		s.until(p+" to begin", func() bool { return s.get("pod/"+p, "{.status.phase}") != "Pending" })
	}
}

// is waits for a condition of an object.
func (s *side) is(what, condition string) {
	s.Helper()
	s.until(what+" to be "+condition, func() bool {
		return s.get(what, `{.status.conditions[?(@.type=="`+condition+`")].status}`) == "True"
	})
}

// ended waits until a pod has, and returns its phase.
func (s *side) ended(pod string) string {
	s.Helper()
	phase := ""
	s.until(pod+" to end", func() bool {
		phase = s.get("pod/"+pod, "{.status.phase}")
		return phase == "Succeeded" || phase == "Failed"
	})
	return phase
}

// get is a value out of an object, or out of all of a kind.
func (s *side) get(what, jsonpath string) string {
	s.Helper()
	value, err := api.Value(s.ctx, s.ns, what, jsonpath)
	if err != nil {
		s.Fatalf("%s of %s: %v", jsonpath, what, err)
	}
	return value
}

// at is a time out of an object.
func (s *side) at(what, jsonpath string) time.Time {
	s.Helper()
	at, err := time.Parse(time.RFC3339, s.get(what, jsonpath))
	if err != nil {
		s.Fatalf("%s of %s: %v", jsonpath, what, err)
	}
	return at
}

func (s *side) exists(what string) bool {
	s.Helper()
	_, err := api.Value(s.ctx, s.ns, what, "")
	if err != nil && !errors.Is(err, kube.ErrNotFound) {
		s.Fatal(err)
	}
	return err == nil
}

// log is what a container has said so far; a pod with one container needs no name of it.
func (s *side) log(pod, container string) string {
	s.Helper()
	log, err := api.Log(s.ctx, s.ns, pod, container)
	if err != nil {
		s.Fatal(err)
	}
	return log
}

// until asks each second. What it asks must cost little (api, not kubectl): most of a test is waiting.
func (s *side) until(what string, f func() bool) {
	s.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(time.Second) {
		if time.Now().After(end) {
			s.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// comes is a script that waits in a container for what a shell finds to be so: an exec for each look would cost much.
func comes(condition string) string {
	return fmt.Sprintf("for i in $(seq %.0f); do if %s; then exit 0; fi; sleep 1; done; echo not so in time; exit 1", patience.Seconds(), condition)
}

// eventSays waits for an event of an object that has all of the words.
func (s *side) eventSays(object string, words ...string) {
	s.Helper()
	s.until(fmt.Sprintf("an event of %s with %q", object, words), func() bool {
		messages, err := api.Messages(s.ctx, s.ns, object)
		if err != nil {
			s.Fatal(err)
		}
		return slices.ContainsFunc(messages, func(m string) bool {
			return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(m, w) })
		})
	})
}
