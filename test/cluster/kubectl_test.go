package cluster

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
)

// try runs kubectl in the side's namespace.
func (s *side) try(stdin string, args ...string) (stdout, stderr string, err error) {
	cmd := exec.CommandContext(s.ctx, "kubectl", append([]string{"--namespace", s.ns}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

func (s *side) ok(args ...string) bool {
	_, _, err := s.try("", args...)
	return err == nil
}

// must runs kubectl, which must succeed, and returns what it said.
func (s *side) must(args ...string) string {
	s.Helper()
	out, errs, err := s.try("", args...)
	if err != nil {
		s.Fatalf("kubectl %q: %v: %s", args, err, errs)
	}
	return out
}

// exit is the exit code of a command that kubectl ran in a container.
func (s *side) exit(err error) int {
	s.Helper()
	var status *exec.ExitError
	if err != nil && !errors.As(err, &status) {
		s.Fatal(err)
	}
	if err != nil {
		return status.ExitCode()
	}
	return 0
}

// apply creates what the manifests say; RUNTIME stands for the RuntimeClass, NETWORK for the annotation that chooses the
// way into the network, and IMAGE and HELPER for images with a shell.
func (s *side) apply(manifests string) {
	s.Helper()
	if _, errs, err := s.try(s.fill(manifests), "apply", "-f", "-"); err != nil {
		s.Fatalf("kubectl apply: %v: %s", err, errs)
	}
}

func (s *side) fill(manifests string) string {
	return strings.NewReplacer("RUNTIME", s.handler, "NETWORK", "krun.dev/network: "+s.way, "IMAGE", image, "HELPER", helper).Replace(manifests)
}

// in runs a shell's script in a container of a pod.
func (s *side) in(pod, script string) string {
	s.Helper()
	out, errs, err := s.try("", "exec", pod, "--", "sh", "-c", script)
	if err != nil {
		s.Fatalf("in %s: %q: %v: %s%s", pod, script, err, out, errs)
	}
	return out
}
