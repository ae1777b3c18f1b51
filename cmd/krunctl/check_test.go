package main

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

func TestWhatTheRunnerSaysIsJudgedByItsPart(t *testing.T) {
	failed := exec.Command("sh", "-c", "echo libgcc_s.so.1: cannot open >&2; exit 127")
	_, linker := failed.Output()
	for name, tc := range map[string]struct {
		out          string
		err          error
		part, detail string
		remedy       string
	}{
		"all there":       {`{"libkrun":"1.19.7","kvm":12,"maxVCPUs":8,"firmware":"/lib/libkrunfw.so.5"}`, nil, "kvm", "up to 8 vCPUs", ""},
		"no KVM":          {`{"problems":[{"part":"kvm","detail":"open /dev/kvm"}]}`, errors.New("exit status 1"), "kvm", "open /dev/kvm", "VT-x"},
		"no libkrunfw":    {`{"problems":[{"part":"libkrunfw","detail":"load libkrunfw"}]}`, nil, "libkrunfw", "load libkrunfw", "set firmware"},
		"a lesser build":  {`{"problems":[{"part":"libkrun","detail":"without net"}]}`, nil, "libkrun", "without net", "reinstall"},
		"the first alone": {`{"problems":[{"part":"kvm","detail":"first"},{"part":"libkrunfw","detail":"second"}]}`, nil, "kvm", "first", "VT-x"},
		"no program":      {"", linker, "libkrun", "libgcc_s.so.1: cannot open", "libgcc_s"},
		"another program": {"hello", nil, "libkrun", "/x/runner does not say", "reinstall"},
	} {
		r := judgeRunner("/x/runner", []byte(tc.out), tc.err)
		if r.Name != tc.part || r.OK != (tc.remedy == "") || !strings.Contains(r.Detail, tc.detail) || !strings.Contains(r.Remedy, tc.remedy) {
			t.Errorf("%s: %+v", name, r)
		}
	}
}
