package cluster

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// examples are the manifests that a user would try first, each with what shows that it works.
var examples = map[string]func(*side){
	"job.yaml": func(s *side) {
		s.is("job/kernel", "Complete")
		if got := s.must("logs", "job/kernel"); !strings.HasPrefix(got, "Linux ") {
			s.Errorf("the Job says %q", got)
		}
	},
	"sandbox.yaml": func(s *side) {
		s.ready("sandbox")
		out, errs, err := s.try("id -u; touch /tmp/x && echo written; touch /x 2>/dev/null || echo read-only; ls /var/run/secrets 2>/dev/null || echo no token\n"+
			"nc -w 5 192.0.2.1 443 </dev/null 2>&1 | grep -o 'Connection refused'\n",
			"exec", "-i", "sandbox", "--", "sh")
		if want := "10000\nwritten\nread-only\nno token\nConnection refused\n"; err != nil || out != want {
			s.Errorf("the sandbox says %q, want %q: %v %s", out, want, err, errs)
		}
	},
	"volumes.yaml": func(s *side) {
		s.Cleanup(func() {
			s.ctx = context.WithoutCancel(s.ctx)
			s.must("delete", "persistentvolume", "krun-example-1", "krun-example-2", "--wait=false")
		})
		if phase := s.ended("volumes"); phase != "Succeeded" {
			s.Errorf("the pod is %s", phase)
		}
		log := s.must("logs", "volumes")
		for _, word := range []string{"greeting", "password", "labels", "token", "== disk", "hostname", "/volumes/memory", "== host-file", "== claim\ntotal", "== ephemeral\ntotal", "== image\ntotal", " bin\n"} {
			if !strings.Contains(log, word) {
				s.Errorf("the pod does not show %q: %s", word, log)
			}
		}
	},
	"web.yaml": func(s *side) {
		s.must("rollout", "status", "deployment/web", waiting)
		if got, want := s.page("service/web", 80, "/"), "200page\n<nil>"; got != want {
			s.Errorf("the Service answers %q, want %q", got, want)
		}
	},
}

// Their images are of registries; this node has one with a shell and httpd.
var (
	exampleImage = regexp.MustCompile(`(image|reference): \S+`)
	nginx        = "image: IMAGE\n          command: [sh, -c, \"mkdir /www; echo page >/www/index.html; exec httpd -f -h /www\"]"
)

func TestExamples(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(os.Getenv(enableEnv), "deploy/examples/*.yaml"))
	if err != nil || len(files) != len(examples) {
		t.Fatalf("there are the examples %q, and %d that this test knows: %v", files, len(examples), err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := newSide(t, "example-"+strings.TrimSuffix(name, ".yaml"), "krun")
			s.spread() // the web server's replicas ask for more than one node has
			defer s.turn()()
			s.apply(exampleImage.ReplaceAllStringFunc(string(text), func(image string) string {
				if strings.Contains(image, "nginx") {
					return nginx
				}
				what, _, _ := strings.Cut(image, ":")
				return what + ": IMAGE"
			}))
			examples[name](s)
		})
	}
}
