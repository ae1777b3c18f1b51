package sysctl

import (
	"os"
	"path/filepath"
	"testing"
)

func TestPath(t *testing.T) {
	for name, want := range map[string]string{
		"net.ipv4.ip_forward":               "net/ipv4/ip_forward",
		"net/ipv4/ip_forward":               "net/ipv4/ip_forward",
		"net.ipv4.conf.eth0/100.forwarding": "net/ipv4/conf/eth0.100/forwarding",
		"net/ipv4/conf/eth0.100/forwarding": "net/ipv4/conf/eth0.100/forwarding",
	} {
		if got, err := Path(name); err != nil || got != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"", ".", "..", "net..ipv4", "/etc/passwd", "net/../../self/oom_score_adj",
		"a.//.b", "net.ipv4.", "net/./x"} {
		if got, err := Path(name); err == nil {
			t.Errorf("%q: accepted as %q", name, got)
		}
	}
}

func TestApplyWritesValuesAndNamesTheOneThatFails(t *testing.T) {
	root := t.TempDir()
	file := filepath.Join(root, "kernel")
	if err := os.WriteFile(file, []byte("0"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Apply(root, map[string]string{"kernel": "7"}); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(file); string(b) != "7" {
		t.Errorf("file holds %q", b)
	}
	if err := Apply(root, map[string]string{"no.such": "1"}); err == nil {
		t.Error("an unknown parameter was accepted")
	}
}
