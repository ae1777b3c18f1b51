package vnet

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestReportIsReadAsItWasWritten(t *testing.T) {
	r := &Report{
		Links: []LinkReport{{Interface: "eth0", FromGuest: SideReport{Frames: 2, Passed: 1, Dropped: map[string]uint64{"refused": 1}},
			FromNetwork: SideReport{Dropped: map[string]uint64{}}}},
		RefusedNames: map[string]uint64{"evil.example.org.": 3}, OpenAddresses: 1,
	}
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ReadReport(data); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestReportOfATakenProcessIsRefusedOrMadeSafe(t *testing.T) {
	many := map[string]uint64{}
	for i := range maxEntries + 1 {
		many[strings.Repeat("x", i)] = 1
	}
	for _, r := range []*Report{{}, {Links: make([]LinkReport, maxLinks+1)}, {Links: make([]LinkReport, 1), RefusedNames: many}} {
		data, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ReadReport(data); err == nil {
			t.Errorf("%d bytes were read: %+v", len(data), got)
		}
	}
	got, err := ReadReport([]byte(`{"links": [{"interface": "\u001b[2J"}], "refusedNames": {"a\u0007": 1, "a\u0008": 2}}`))
	if err != nil || got.Links[0].Interface != "?[2J" || got.RefusedNames["a?"] != 3 {
		t.Errorf("%+v, %v", got, err)
	}
}

func FuzzReadReport(f *testing.F) {
	f.Add([]byte(`{"links": [{"interface": "eth0", "fromGuest": {"dropped": {"refused": 1}}}], "refusedNames": {"a": 1}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ReadReport(data)
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range again {
			if b < ' ' || b > '~' {
				t.Fatalf("%q can be shown", again)
			}
		}
	})
}
