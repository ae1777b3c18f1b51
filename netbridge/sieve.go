package netbridge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Watch has a user-space process carry the frames between CNI's interfaces and the taps, instead of a redirect: what arrives at
// either is dropped once packet sockets have had it. So nothing passes when that process has ended.
type Watch struct {
	// Nameservers may answer the namespace's own stack, from which the process asks them. It hears nothing else: the neighbours on the
	// way to them are those that answered at the start, and for the guest's addresses, which it has too, the guest answers.
	Nameservers []netip.AddrPort
}

// sieveName marks the filters of this package on an interface whose qdisc is not ours.
const sieveName = "krunpod_sieve"

// addSieve drops what arrives on a link, but for what the namespace's own stack needs to talk to nameservers; without any,
// everything. hops are neighbours that the stack has to ask for yet.
func addSieve(h *netlink.Handle, link int, nameservers []netip.AddrPort, hops []netip.Addr) error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: sieveName, Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: sieve(nameservers, hops),
	})
	if err != nil {
		return fmt.Errorf("load a program for ingress filters (BPF, CONFIG_BPF_SYSCALL): %w", err)
	}
	defer program.Close() // the filter holds it
	err = h.FilterAdd(&netlink.BpfFilter{FilterAttrs: redirectAttrs(link), Fd: program.FD(), Name: sieveName, DirectAction: true})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("add filter: %w: load the kernel module cls_bpf", err)
	case errors.Is(err, unix.EEXIST), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("add filter: %w: another ingress filter has priority %d: remove it", err, filterPriority)
	}
	return fmt.Errorf("add filter: %w", err)
}

// Where a frame has what the sieve looks at, in bytes: Ethernet, then ARP (RFC 826), IPv4 without options (RFC 791) or IPv6
// without extensions (RFC 8200), then the source port or the type of an ICMPv6 message.
const (
	atType          = 12
	atARPOperation  = 20
	atARPSender     = 28
	atIPv4Length    = 14
	atIPv4Fragment  = 20
	atIPv4Protocol  = 23
	atIPv4Source    = 26
	atIPv4Transport = 34
	atIPv6Next      = 20
	atIPv6HopLimit  = 21
	atIPv6Source    = 22
	atIPv6Transport = 54
	atNeighbour     = 62 // of an advertisement

	// The shortest frames with all of that: ARP and UDP over IPv4, UDP over IPv6, and an advertisement.
	minFrame          = 42
	minIPv6Frame      = 62
	minNeighbourFrame = 78

	arpReply              = 2
	neighborAdvertisement = 136 // RFC 4861, section 4.4
	fragment              = 0x3fff
)

// sieve is a program for a clsact qdisc (BPF_PROG_TYPE_SCHED_CLS with direct action): TC_ACT_OK goes on to the stack. A load
// beyond the frame's end would end it with 0, which is that, so lengths are looked at first.
func sieve(nameservers []netip.AddrPort, hops []netip.Addr) asm.Instructions {
	drop := asm.Instructions{asm.Mov.Imm(asm.R0, int32(netlink.TC_ACT_SHOT)).WithSymbol("drop"), asm.Return()}
	if len(nameservers) == 0 {
		return drop
	}
	p := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),              // where loads find the frame
		asm.LoadMem(asm.R7, asm.R6, 0, asm.Word), // __sk_buff.len
		asm.JLT.Imm(asm.R7, minFrame, "drop"),
		asm.LoadAbs(atType, asm.Half),
		asm.JEq.Imm(asm.R0, unix.ETH_P_IP, "ipv4"),
		asm.JEq.Imm(asm.R0, unix.ETH_P_IPV6, "ipv6"),
		asm.JNE.Imm(asm.R0, unix.ETH_P_ARP, "drop"),
		asm.LoadAbs(atARPOperation, asm.Half),
		asm.JEq.Imm(asm.R0, arpReply, "hop4"),
		asm.Ja.Label("drop"),

		asm.LoadAbs(atIPv4Length, asm.Byte).WithSymbol("ipv4"),
		asm.JNE.Imm(asm.R0, 0x45, "drop"),
		asm.LoadAbs(atIPv4Fragment, asm.Half),
		asm.And.Imm(asm.R0, fragment),
		asm.JNE.Imm(asm.R0, 0, "drop"),
		asm.LoadAbs(atIPv4Protocol, asm.Byte),
		asm.JEq.Imm(asm.R0, unix.IPPROTO_UDP, "from4"),
		asm.JNE.Imm(asm.R0, unix.IPPROTO_TCP, "drop"),
		asm.Ja.Label("from4"),

		asm.JLT.Imm(asm.R7, minIPv6Frame, "drop").WithSymbol("ipv6"),
		asm.LoadAbs(atIPv6Next, asm.Byte),
		asm.JEq.Imm(asm.R0, unix.IPPROTO_UDP, "from6"),
		asm.JEq.Imm(asm.R0, unix.IPPROTO_TCP, "from6"),
		asm.JNE.Imm(asm.R0, unix.IPPROTO_ICMPV6, "drop"),
		asm.LoadAbs(atIPv6Transport, asm.Byte),
		asm.JNE.Imm(asm.R0, neighborAdvertisement, "drop"),
		asm.LoadAbs(atIPv6HopLimit, asm.Byte),
		asm.JNE.Imm(asm.R0, 255, "drop"),
		asm.JLT.Imm(asm.R7, minNeighbourFrame, "drop"),
		asm.Ja.Label("hop6"),
	}
	p = append(p, oneOf(hops, "hop4", netip.Addr.Is4, atARPSender)...)
	p = append(p, oneOf(hops, "hop6", netip.Addr.Is6, atNeighbour)...)
	p = append(p, from(nameservers, "from4", netip.Addr.Is4, atIPv4Source, atIPv4Transport)...)
	p = append(p, from(nameservers, "from6", netip.Addr.Is6, atIPv6Source, atIPv6Transport)...)
	p = append(p, asm.Mov.Imm(asm.R0, int32(netlink.TC_ACT_OK)).WithSymbol("pass"), asm.Return())
	return append(p, drop...)
}

// from jumps to "pass" for a frame whose source is one of the nameservers of a family, and to "drop" for others.
func from(nameservers []netip.AddrPort, label string, family func(netip.Addr) bool, source, port int32) (p asm.Instructions) {
	p = asm.Instructions{asm.Mov.Imm(asm.R0, 0).WithSymbol(label)}
	for i, ns := range nameservers {
		addr := ns.Addr().Unmap()
		if !family(addr) {
			continue
		}
		next := fmt.Sprintf("%s-%d", label, i)
		p = append(p, isAt(addr, source, next)...)
		p = append(p, asm.LoadAbs(port, asm.Half), asm.JEq.Imm(asm.R0, int32(ns.Port()), "pass"),
			asm.Mov.Imm(asm.R0, 0).WithSymbol(next))
	}
	return append(p, asm.Ja.Label("drop"))
}

// oneOf jumps to "pass" for a frame that has one of the addresses of a family at a place, and to "drop" for others.
func oneOf(addrs []netip.Addr, label string, family func(netip.Addr) bool, place int32) (p asm.Instructions) {
	p = asm.Instructions{asm.Mov.Imm(asm.R0, 0).WithSymbol(label)}
	for i, addr := range addrs {
		if !family(addr) {
			continue
		}
		next := fmt.Sprintf("%s-%d", label, i)
		p = append(p, isAt(addr, place, next)...)
		p = append(p, asm.Ja.Label("pass"), asm.Mov.Imm(asm.R0, 0).WithSymbol(next))
	}
	return append(p, asm.Ja.Label("drop"))
}

// isAt jumps to other unless the frame has an address at a place.
func isAt(addr netip.Addr, place int32, other string) (p asm.Instructions) {
	for words := addr.AsSlice(); len(words) > 0; place, words = place+4, words[4:] {
		p = append(p, asm.LoadAbs(place, asm.Word), asm.JNE.Imm32(asm.R0, int32(binary.BigEndian.Uint32(words)), other))
	}
	return p
}

// isSieve recognises the filter of addSieve.
func isSieve(f netlink.Filter) bool {
	b, ok := f.(*netlink.BpfFilter)
	return ok && b.Name == sieveName
}
