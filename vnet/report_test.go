package vnet

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"krun.dev/krunpod/vnet/dns"
	"krun.dev/krunpod/vnet/firewall"
	"krun.dev/krunpod/vnet/policy"
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

// The guest chooses the names that it asks for: whatever it takes, the line of a report is one that the sandbox reads.
func TestWorstReportIsRead(t *testing.T) {
	for _, worst := range []string{"<", ">", "&", `"`, "'", "~", "\x7f"} {
		openings := firewall.NewOpenings(0, nil)
		r := dns.New(dns.Config{Names: (&policy.Policy{}).NameSet(), Openings: openings})
		for i := range 2000 {
			label := strings.Repeat(worst, 62)
			name, err := dnsmessage.NewName(fmt.Sprintf("%04d%s.%s.%s.%s.", i, label[:58], label, label, label))
			if err != nil {
				t.Fatal(err)
			}
			m := dnsmessage.Message{Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
			query, err := m.Pack()
			if err != nil {
				t.Fatal(err)
			}
			r.Answer(t.Context(), query)
		}
		v := &Vnet{openings: openings, resolver: r}
		report := v.Report()
		var counters firewall.Counters
		counters.Frames, counters.Passed = math.MaxUint64, math.MaxUint64
		for i := range counters.Dropped {
			counters.Dropped[i] = math.MaxUint64
		}
		for i := range counters.Malformed {
			counters.Malformed[i] = math.MaxUint64
		}
		side := sideReport(counters, math.MaxUint64, math.MaxUint64)
		for range maxLinks {
			report.Links = append(report.Links, LinkReport{
				Interface: strings.Repeat("x", 15), FromGuest: side, FromNetwork: side, Connections: math.MaxInt64})
		}
		var line bytes.Buffer
		if err := WriteReport(&line, report); err != nil {
			t.Fatal(err)
		}
		if line.Len() > MaxReport {
			t.Errorf("names of %s: a line of %d bytes", worst, line.Len())
		}
		if _, err := ReadReport(line.Bytes()); err != nil {
			t.Error(err)
		}
	}
}
