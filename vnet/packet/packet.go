package packet

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// MAC is an Ethernet address.
type MAC [6]byte

// Multicast reports whether m is a group of stations or all of them.
func (m MAC) Multicast() bool { return m[0]&1 != 0 }

// Kind is what an Ethernet frame carries.
type Kind uint8

// The kinds that Parse knows.
const (
	KindARP Kind = iota + 1
	KindIPv4
	KindIPv6
)

// Protocol is a number of IANA's registry of IP protocols.
type Protocol uint8

// The protocols that Parse looks into.
const (
	ICMPv4Protocol = Protocol(header.ICMPv4ProtocolNumber)
	TCPProtocol    = Protocol(header.TCPProtocolNumber)
	UDPProtocol    = Protocol(header.UDPProtocolNumber)
	ICMPv6Protocol = Protocol(header.ICMPv6ProtocolNumber)
)

// Packet is what a frame says. Which fields hold something depends on Kind, Protocol and Fragment; those that hold
// nothing are zero.
type Packet struct {
	Kind Kind
	// Source and Destination are the frame's.
	Source, Destination MAC

	// From and To are the addresses of the IP header, or of ARP's sender and target.
	From, To netip.Addr
	// HopLimit is the IP header's, also for IPv4, where it is called time to live.
	HopLimit uint8
	// Protocol is that of the header after the IP header and its extensions. In a fragment other than the first it is
	// what the fragment says, and the fields of TCP, UDP and ICMP are zero.
	Protocol Protocol
	Fragment Fragment

	// FromPort and ToPort are those of TCP and UDP.
	FromPort, ToPort uint16
	TCP              TCPFields
	ICMP             ICMPFields
	// Neighbour is what ARP or neighbour discovery says.
	Neighbour Neighbour

	// Network, Transport and End are places in the frame: of the IP header, of the header after its extensions and of
	// the end of the packet, after which there may be padding.
	Network, Transport, End int
}

// Fragment is a part of an IP packet; the zero value is a packet without a fragment header. With one, End is not 0.
type Fragment struct {
	// ID is the same in all fragments of a packet.
	ID uint32
	// Start and End are the bytes of the packet's fragmentable part that this one holds.
	Start, End int
	// More says that it is not the last.
	More bool
}

// Split reports whether the packet is in several parts.
func (f Fragment) Split() bool { return f.More || f.Start != 0 }

// The flags of TCP that a connection's state follows from.
const (
	FIN = header.TCPFlagFin
	SYN = header.TCPFlagSyn
	RST = header.TCPFlagRst
	ACK = header.TCPFlagAck
)

// TCPFields are what connection tracking and a reset need of a TCP header.
type TCPFields struct {
	Seq, Ack uint32
	Flags    header.TCPFlags
	// Payload is the number of bytes after the header.
	Payload int
}

// Has reports whether all of flags are set.
func (t TCPFields) Has(flags header.TCPFlags) bool { return t.Flags&flags == flags }

// ICMPFields are those of ICMP and ICMPv6.
type ICMPFields struct {
	Type, Code uint8
	// ID is that of an echo request or reply.
	ID uint16
	// Quoted is the packet that an error is about.
	Quoted Quoted
}

// Quoted is the start of a packet in an ICMP error, as far as it is there; without From it could not be read.
type Quoted struct {
	From, To         netip.Addr
	Protocol         Protocol
	FromPort, ToPort uint16
	// ID is that of an ICMP echo.
	ID uint16
}

// Neighbour is what a frame of ARP, neighbour discovery or multicast listener discovery claims.
type Neighbour struct {
	// Type is that of the ICMPv6 message, or ARP's operation.
	Type uint16
	// Target is the address that a solicitation, an advertisement or a redirect is about, or the group of a listener's first report; for
	// ARP see From and To.
	Target netip.Addr
	// MAC is the hardware address that the message gives for its sender or, in an advertisement, for Target.
	MAC MAC
	// HasMAC says that it gives one.
	HasMAC bool
	// Plain says that there is nothing in the frame but this message as a station writes it: no bytes that nobody reads.
	Plain bool
}
