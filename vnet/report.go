package vnet

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"krun.dev/krunpod/vnet/dns"
	"krun.dev/krunpod/vnet/firewall"
	"krun.dev/krunpod/vnet/packet"
)

// Report is what a Vnet has counted, for people and metrics.
type Report struct {
	Links []LinkReport `json:"links"`
	// Resolver is there if the policy has names.
	Resolver *dns.Stats `json:"resolver,omitempty"`
	// RefusedNames are names that the guest asked for and may not know, with how often; not all, if there were many.
	RefusedNames map[string]uint64 `json:"refusedNames,omitempty"`
	// OpenAddresses is how many addresses of names are open now.
	OpenAddresses int `json:"openAddresses"`
}

// LinkReport is that of one interface.
type LinkReport struct {
	// Interface is CNI's name for it.
	Interface   string     `json:"interface"`
	FromGuest   SideReport `json:"fromGuest"`
	FromNetwork SideReport `json:"fromNetwork"`
	Connections int        `json:"connections"`
}

// SideReport counts the frames from one side.
type SideReport struct {
	Frames uint64 `json:"frames"`
	Passed uint64 `json:"passed"`
	// Dropped are those that did not pass, by why.
	Dropped map[string]uint64 `json:"dropped,omitempty"`
	// Unread came faster than they were judged; Unsent passed, and the other side did not take them.
	Unread uint64 `json:"unread"`
	Unsent uint64 `json:"unsent"`
}

// Add adds what another counted.
func (s *SideReport) Add(o SideReport) {
	s.Frames, s.Passed, s.Unread, s.Unsent = s.Frames+o.Frames, s.Passed+o.Passed, s.Unread+o.Unread, s.Unsent+o.Unsent
	if s.Dropped == nil {
		s.Dropped = map[string]uint64{}
	}
	for why, n := range o.Dropped {
		s.Dropped[why] += n
	}
}

// DroppedInAll is the sum of Dropped.
func (s *SideReport) DroppedInAll() (sum uint64) {
	for _, n := range s.Dropped {
		sum += n
	}
	return sum
}

// Report reports what was counted so far.
func (v *Vnet) Report() Report {
	r := Report{OpenAddresses: v.openings.Len()}
	for _, l := range v.links {
		s := l.bridge.Stats()
		r.Links = append(r.Links, LinkReport{
			Interface: l.name, Connections: s.Firewall.Connections,
			FromGuest:   sideReport(s.Firewall.FromGuest, s.UnreadFromGuest, s.UnsentToNetwork),
			FromNetwork: sideReport(s.Firewall.FromNetwork, s.UnreadFromNetwork, s.UnsentToGuest),
		})
	}
	if v.resolver != nil {
		s := v.resolver.Stats()
		r.Resolver, r.RefusedNames = &s, v.resolver.RefusedNames()
	}
	return r
}

func sideReport(c firewall.Counters, unread, unsent uint64) SideReport {
	s := SideReport{Frames: c.Frames, Passed: c.Passed, Dropped: map[string]uint64{}, Unread: unread, Unsent: unsent}
	for reason, n := range c.Malformed {
		if n > 0 {
			s.Dropped["malformed: "+packet.Reason(reason).String()] = n
		}
	}
	for cause, n := range c.Dropped {
		if n > 0 {
			s.Dropped[firewall.Cause(cause).String()] = n
		}
	}
	return s
}

// Bounds of a report that is read, which those that Report makes keep: interfaces, and entries of each map.
const (
	maxLinks   = 64
	maxEntries = 1024
)

// MaxReport is more than the longest line that WriteReport writes, in bytes. The guest chooses the names in it: there are 512 of 254
// bytes at most, each of which takes two if it is a quote (package dns takes no backslash).
const MaxReport = 512 << 10

// WriteReport writes a report as a line of JSON.
func WriteReport(w io.Writer, r Report) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false) // six bytes for one: a guest could make a line of more than MaxReport
	return enc.Encode(r)
}

// ReadReport reads a report that a process wrote as JSON. The process has parsed what a guest sent, and is believed no more than the
// guest: what comes out is bounded and safe to show.
func ReadReport(data []byte) (*Report, error) {
	var r Report
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("vnet report: %w", err)
	}
	if len(r.Links) == 0 || len(r.Links) > maxLinks {
		return nil, fmt.Errorf("vnet report: it has %d links", len(r.Links))
	}
	var err error
	clean := func(m *map[string]uint64) {
		if len(*m) > maxEntries {
			err = fmt.Errorf("vnet report: it has a table of %d entries", len(*m))
		}
		*m = printableKeys(*m)
	}
	clean(&r.RefusedNames)
	for i := range r.Links {
		l := &r.Links[i]
		l.Interface = printable(l.Interface)
		clean(&l.FromGuest.Dropped)
		clean(&l.FromNetwork.Dropped)
	}
	if err != nil {
		return nil, err
	}
	return &r, nil
}

func printableKeys(m map[string]uint64) map[string]uint64 {
	out := make(map[string]uint64, len(m))
	for key, n := range m {
		out[printable(key)] += n
	}
	return out
}

// printable is a text in ASCII without what a terminal obeys.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text)
}
