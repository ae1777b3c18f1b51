package packet_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	. "krun.dev/krunpod/vnet/packet"
	. "krun.dev/krunpod/vnet/vnettest"
)

// offload is a struct virtio_net_hdr (linux/virtio_net.h).
func offload(flags, kind uint8, headerLength, segment, start, offset uint16) []byte {
	b := []byte{flags, kind}
	for _, v := range []uint16{headerLength, segment, start, offset} {
		b = binary.NativeEndian.AppendUint16(b, v)
	}
	return b
}

func TestOffloadsLeaveThePacketAsItWasJudged(t *testing.T) {
	big := Data(string(make([]byte, 6000)))
	tcp4, tcp6 := IP(t, Guest4, Peer4, TCP(1, 2, "A"), big), IP(t, Guest6, Peer6, TCP(1, 2, "A"), big)
	udp4, udp6 := IP(t, Guest4, Peer4, UDP(1, 2), big), IP(t, Guest6, Peer6, UDP(1, 2), big)
	echo4, arp := IP(t, Guest4, Peer4, Echo(Guest4, 1, false)...), ARP(t, Guest4.MAC, ARPRequest, Guest4, Peer4)
	part := Fragments(t, udp4, 1, 1400)[0]
	const l4, l6 = 34, 54 // where the transport's header begins
	for what, c := range map[string]struct {
		frame  []byte
		header []byte
		want   Reason
	}{
		"nothing":                        {tcp4, offload(0, 0, 0, 0, 9, 9), WellFormed},
		"checksum of TCP":                {tcp4, offload(1, 0, 0, 0, l4, 16), WellFormed},
		"… over IPv6":                    {tcp6, offload(1, 0, 0, 0, l6, 16), WellFormed},
		"checksum of UDP":                {udp4, offload(1, 0, 0, 0, l4, 6), WellFormed},
		"… over IPv6, of UDP":            {udp6, offload(1, 0, 0, 0, l6, 6), WellFormed},
		"… to TCP's field":               {udp4, offload(1, 0, 0, 0, l4, 2), BadOffload},
		"checksum over the ports":        {tcp4, offload(1, 0, 0, 0, l4, 0), BadOffload},
		"… over the address":             {tcp4, offload(1, 0, 0, 0, 0, 30), BadOffload},
		"… over the flags":               {tcp4, offload(1, 0, 0, 0, l4, 12), BadOffload},
		"… from elsewhere to the field":  {tcp4, offload(1, 0, 0, 0, l4-2, 18), BadOffload},
		"… in what it carries":           {udp4, offload(1, 0, 0, 0, l4+8+50, 16), WellFormed},
		"… across its end":               {udp4, offload(1, 0, 0, 0, uint16(len(udp4)-17), 16), BadOffload},
		"… far beyond its end":           {udp4, offload(1, 0, 0, 0, 0xffff, 0xffff), BadOffload},
		"checksum of an echo":            {echo4, offload(1, 0, 0, 0, l4, 2), BadOffload},
		"checksum of ARP":                {arp, offload(1, 0, 0, 0, 14, 2), BadOffload},
		"checksum of a fragment":         {part, offload(1, 0, 0, 0, l4, 6), BadOffload},
		"checksum that was verified":     {arp, offload(2, 0, 0, 0, 0, 0), WellFormed},
		"unknown flag":                   {tcp4, offload(4, 0, 0, 0, 0, 0), BadOffload},
		"header longer than the frame":   {arp, offload(2, 0, 43, 0, 0, 0), BadOffload},
		"segments of TCP":                {tcp4, offload(1, 1, 54, 1400, l4, 16), WellFormed},
		"… with ECN":                     {tcp4, offload(1, 0x81, 54, 1400, l4, 16), WellFormed},
		"… of TCP over IPv6":             {tcp6, offload(1, 4, 74, 1400, l6, 16), WellFormed},
		"… of a checksum that was done":  {tcp4, offload(2, 1, 54, 1400, 0, 0), WellFormed},
		"… without a checksum":           {tcp4, offload(0, 1, 54, 1400, 0, 0), BadOffload},
		"… of the other family":          {tcp4, offload(1, 4, 54, 1400, l4, 16), BadOffload},
		"… of a byte":                    {tcp4, offload(1, 1, 54, 1, l4, 16), BadOffload},
		"… of nothing":                   {tcp4, offload(1, 1, 54, 0, l4, 16), BadOffload},
		"… of UDP":                       {udp4, offload(1, 1, 42, 1400, l4, 6), BadOffload},
		"datagrams":                      {udp4, offload(1, 5, 42, 1000, l4, 6), WellFormed},
		"… of a byte each":               {udp4, offload(1, 5, 42, 1, l4, 6), BadOffload},
		"… with ECN, of UDP":             {udp4, offload(1, 0x85, 42, 1000, l4, 6), BadOffload},
		"… of TCP":                       {tcp4, offload(1, 5, 54, 1000, l4, 16), BadOffload},
		"fragments by the device (UFO)":  {udp4, offload(1, 3, 42, 1000, l4, 6), BadOffload},
		"ECN alone":                      {tcp4, offload(1, 0x80, 54, 1400, l4, 16), BadOffload},
		"segments of what is a fragment": {part, offload(2, 5, 42, 1000, l4, 6), BadOffload},
	} {
		t.Run(what, func(t *testing.T) {
			var p Packet
			if got := Parse(c.frame, &p); got != WellFormed {
				t.Fatal(got)
			}
			if got := p.CheckOffload(ReadOffload(c.header), len(c.frame)); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

// FuzzOffload does what a device does with the checksum that is left, and wants the packet to be the same after it.
func FuzzOffload(f *testing.F) {
	for _, frame := range [][]byte{
		IP(f, Guest4, Peer4, TCP(1, 2, "S")), IP(f, Guest6, Peer6, TCP(1, 2, "S")), IP(f, Guest4, Peer4, UDP(1, 2), Data("0123456789")),
		ICMPError(f, Peer4, Guest4, 3, 1, IP(f, Guest4, Peer4, UDP(1, 2))), ARP(f, Guest4.MAC, ARPRequest, Guest4, Peer4),
		ND(f, Guest6, Peer6, ICMPv6NeighborSol, Peer6.Addr, Guest6.MAC),
	} {
		f.Add(frame, offload(1, 0, 0, 0, 34, 16), uint16(0xffff))
		f.Add(frame, offload(1, 0, 0, 0, 54, 6), uint16(0))
		f.Add(frame, offload(1, 1, 0, 1400, 34, 16), uint16(22))
		f.Add(frame, offload(1, 0, 0, 0, 44, 4), uint16(22))
	}
	f.Fuzz(func(t *testing.T, frame, header []byte, sum uint16) {
		if len(header) < OffloadSize {
			return
		}
		var before, after Packet
		if Parse(frame, &before) != WellFormed || before.CheckOffload(ReadOffload(header), len(frame)) != WellFormed {
			return
		}
		if header[0]&1 == 0 {
			return
		}
		at := int(binary.NativeEndian.Uint16(header[6:])) + int(binary.NativeEndian.Uint16(header[8:]))
		done := bytes.Clone(frame)
		binary.BigEndian.PutUint16(done[at:], sum)
		if Parse(done, &after) != WellFormed || before != after {
			t.Errorf("%+v became %+v", before, after)
		}
	})
}
