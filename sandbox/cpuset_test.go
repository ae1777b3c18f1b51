package sandbox

import (
	"os"
	"strings"
	"testing"
)

func TestOnlyAPinThatChangesIsWritten(t *testing.T) {
	above := t.TempDir()
	dir := above + "/sandbox"
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	read := func(file string) string {
		data, err := os.ReadFile(dir + "/" + file)
		if err != nil {
			return err.Error()
		}
		return string(data)
	}
	var c cpuset
	if err := c.set(dir+"/none", "", ""); err != nil {
		t.Errorf("a pod that is not pinned needs a controller: %v", err)
	}
	if err := c.set(dir+"/none", "1", ""); err == nil || !strings.Contains(err.Error(), `cpuset.cpus "1"`) {
		t.Errorf("no controller: %v", err)
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		if err := os.WriteFile(dir+"/"+file, []byte("as it was"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.set(dir, "2-3", ""); err != nil || read("cpuset.cpus") != "2-3\n" || read("cpuset.mems") != "as it was" {
		t.Errorf("%q, %q, %v", read("cpuset.cpus"), read("cpuset.mems"), err)
	}
	// A group in which something runs cannot lose its list: the kernel refuses an empty one.
	if err := os.WriteFile(above+"/cpuset.cpus.effective", []byte("0-7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.set(dir, "", "0"); err != nil || read("cpuset.cpus") != "0-7\n" || read("cpuset.mems") != "0\n" {
		t.Errorf("%q, %q, %v", read("cpuset.cpus"), read("cpuset.mems"), err)
	}
}
