package vnet

import (
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
