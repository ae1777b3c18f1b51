package vnet

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
)

// FuzzReadConfig wants what was read to be valid, and to be the same when it is written and read again.
func FuzzReadConfig(f *testing.F) {
	for _, text := range []string{
		`{"links": [{"guest": "krun0", "network": "eth0", "mac": "02:00:00:00:00:10", "addresses": ["10.9.0.2", "fd00::2"]}], "root": "/x"}`,
		`{"links": [{"guest": "krun0", "network": "eth0", "mac": "02:00:00:00:00:10", "addresses": []}], "root": "/x",
		  "policy": {"krun.dev/egress-allow": "api.example.org:443"}, "nameservers": ["10.96.0.10:53"]}`,
		`{"gateway": {"subnet": "10.0.0.0/24", "forwards": ["127.0.0.1:8080:80/tcp"]}, "nameservers": ["127.0.0.53:53"], "root": "/x"}`,
		`{"gateway": {}, "links": [], "root": "relative"}`, `{"unknown": 1}`, `[]`, ``,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ReadConfig(bytes.NewReader(data))
		if err != nil {
			return
		}
		if _, err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		written, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ReadConfig(bytes.NewReader(written))
		if err != nil {
			t.Fatalf("%s: %v", written, err)
		}
		if twice, err := json.Marshal(again); err != nil || !reflect.DeepEqual(twice, written) {
			t.Errorf("%s became %s, %v", written, twice, err)
		}
	})
}
