package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/test/testpod"
)

// tries calls what the profiles below decide about.
const tries = `mkdir /made; echo mkdir $?; chmod 700 /tmp; echo chmod $?; hostname other; echo hostname $?
	ln -s a /link; echo symlink $?; unshare -r true; echo unshare $?; grep -E 'Seccomp|NoNewPrivs' /proc/self/status`

// profiles are seccomp profiles of the node, as a pod names them by their file (localhost/…).
var profiles = []struct{ name, json string }{
	{"denied", rules(`{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}`)},
	{"errno", rules(`{"names": ["symlink", "symlinkat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 88}`)},
	{"killed", rules(`{"names": ["unshare"], "action": "SCMP_ACT_KILL_PROCESS"}`)},
	{"logged", rules(`{"names": ["sethostname"], "action": "SCMP_ACT_LOG"}`)},
	{"argument", rules(`{"names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 448, "op": "SCMP_CMP_EQ"},
		{"index": 2, "value": 448, "op": "SCMP_CMP_EQ"}]}`)},
	{"dies-before-its-start", `{"defaultAction": "SCMP_ACT_KILL_PROCESS", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": []}`},
	{"unknown-call", rules(`{"names": ["no_such_call"], "action": "SCMP_ACT_ERRNO"}`)},
	{"unknown-action", rules(`{"names": ["mkdir"], "action": "SCMP_ACT_FORBID"}`)},
	{"no-json", "no json"},
}

func rules(list string) string {
	return `{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "syscalls": [` + list + `]}`
}

// Seccomp profiles do under either runtime the same to the same calls.
func TestSameSeccomp(t *testing.T) {
	dir := t.TempDir()
	compareWithRunc(t, "seccomp", 50, func(s *side) {
		p := s.startPod()
		for _, profile := range profiles {
			path := filepath.Join(dir, profile.name+".json")
			if err := os.WriteFile(path, []byte(profile.json), 0o600); err != nil {
				s.Fatal(err)
			}
			s.lookAtProfile(p, profile.name, &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_Localhost, LocalhostRef: path})
		}
		s.lookAtProfile(p, "missing", &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_Localhost, LocalhostRef: filepath.Join(dir, "none")})
		s.lookAtProfile(p, "default", &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_RuntimeDefault})
		s.lookAtProfile(p, "unconfined", &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_Unconfined})
	}, "krun")
}

func (s *side) lookAtProfile(p *testpod.Pod, name string, profile *runtime.SecurityProfile) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	config := testpod.ContainerConfig(name, tries)
	config.Linux.SecurityContext.Seccomp = profile
	k, err := p.Create(ctx, config)
	s.seeError(name+"/create", err)
	if err != nil {
		return
	}
	s.name(k.ID, "CONTAINER")
	err = k.Start(ctx)
	s.seeError(name+"/start", err)
	if err == nil {
		s.waitExit(k)
		out, errs, err := k.Log()
		s.see(name+"/log", fmt.Sprint(out, errs, err))
	}
	st, err := k.Status(ctx)
	if err != nil {
		s.Fatal(err)
	}
	s.see(name+"/end", fmt.Sprint(st.State, " ", st.ExitCode, " ", st.Reason))
	s.seeError(name+"/remove", k.Remove(ctx))
}
