package cri

import (
	"fmt"
	"net/netip"
	"slices"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/config"
	"krun.dev/krunpod/sandbox"
	"krun.dev/krunpod/vnet/gateway"
	"krun.dev/krunpod/vnet/policy"
)

const dnsPort = 53

// vnet is what the annotations of a pod want of the vnet, within what the node allows; nil is a pod without one. A mistake in a
// policy is an error, and never a pod with less of it.
//
// Without a network namespace of CNI's (netNS is empty) a vnet is a network of its own, and dns becomes what the guest is told of it.
func vnet(annotations map[string]string, netNS string, dns *api.DNS, c config.Network) (*sandbox.VNet, error) {
	p, err := policy.Parse(annotations)
	if err != nil {
		return nil, err
	}
	chosen, ok := annotations[annotationNetwork]
	way := config.Way(chosen)
	switch {
	case !ok && p != nil:
		way = config.WayVNet
	case !ok:
		way = c.Default
	case way != config.WayTap && way != config.WayVNet:
		return nil, fmt.Errorf("annotation %s: %q is neither %q nor %q", annotationNetwork, chosen, config.WayTap, config.WayVNet)
	case p != nil && way == config.WayTap:
		return nil, fmt.Errorf("annotation %s: %q has no policy: remove it, or %s and %s", annotationNetwork, chosen,
			policy.AnnotationRules, policy.AnnotationEgressAllow)
	}
	if way != c.Default && !slices.Contains(c.Allow, way) {
		return nil, fmt.Errorf("the pod's annotations ask for the network %q, and this node allows %q: the key network.allow of its configuration",
			way, slices.Concat([]config.Way{c.Default}, c.Allow))
	}
	forwards, forwarded := annotations[annotationForward]
	switch {
	case forwarded && netNS != "":
		return nil, fmt.Errorf("annotation %s: the pod has a network of CNI, where its ports are reached as any other pod's: remove it", annotationForward)
	case forwarded && way == config.WayTap:
		return nil, fmt.Errorf("annotation %s: it needs a network: set %s to %q", annotationForward, annotationNetwork, config.WayVNet)
	case way == config.WayTap:
		return nil, nil
	}
	v := &sandbox.VNet{Policy: map[string]string{}}
	for _, key := range []string{policy.AnnotationRules, policy.AnnotationEgressAllow} {
		if text, ok := annotations[key]; ok {
			v.Policy[key] = text
		}
	}
	if netNS == "" {
		if err := ownNetwork(v, forwards, dns, c); err != nil {
			return nil, err
		}
		return v, nil
	}
	if p != nil && p.Names() {
		if v.Nameservers, err = nameservers(dns); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// ownNetwork gives the guest one, on which the gateway asks the host's nameservers.
func ownNetwork(v *sandbox.VNet, forwards string, dns *api.DNS, c config.Network) (err error) {
	v.Gateway = &gateway.Config{Subnet: c.Subnet}
	if forwards != "" {
		if v.Gateway.Forwards, err = gateway.ParseForwards(forwards); err != nil {
			return fmt.Errorf("annotation %s: %w", annotationForward, err)
		}
	}
	if err := v.Gateway.Validate(); err != nil {
		return fmt.Errorf("annotation %s: %w", annotationForward, err)
	}
	for _, text := range dns.GetServers() {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("nameserver %q of the host is not an address", text)
		}
		v.Nameservers = append(v.Nameservers, netip.AddrPortFrom(addr.Unmap(), dnsPort))
	}
	dns.Servers = []string{v.Gateway.Address().Addr().String()}
	return nil
}

// nameservers are the pod's that answer for names of its policy. On a loopback there is nobody but the pod itself.
func nameservers(dns *api.DNS) (list []netip.AddrPort, err error) {
	for _, text := range dns.GetServers() {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("nameserver %q of the pod is not an address", text)
		}
		if addr = addr.Unmap(); !addr.IsLoopback() {
			list = append(list, netip.AddrPortFrom(addr, dnsPort))
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("the pod's network policy has names, and the pod has no nameserver to ask: its DNS configuration has %q", dns.GetServers())
	}
	return list, nil
}
