package packet

// Reason says why a frame is malformed. The zero value, WellFormed, says that it is not.
type Reason uint8

// The reasons, in the order of the layers.
const (
	WellFormed      Reason = iota
	ShortFrame             // no whole Ethernet header
	SourceMulticast        // the frame's source is a group of stations
	OtherEtherType         // neither ARP nor IPv4 nor IPv6: a VLAN tag, a length (IEEE 802.3), anything else
	BadARP                 // not ARP for IPv4 over Ethernet, or cut short
	BadIPv4Header          // version, lengths or checksum
	BadIPv4Option          // an option cut short or of length 0
	SourceRoute            // the packet names its own way: LSRR or SSRR, or an IPv6 routing header
	BadIPv6Header          // version or lengths, a jumbogram
	BadExtension           // an IPv6 extension header cut short, out of place, or one too many
	BadFragment            // a fragment of a size or at a place that cannot be put together
	SplitHeader            // the first fragment does not hold all headers: RFC 1858, RFC 7112
	BadAddress             // a source or destination that must not be on the wire
	BadTCP                 // lengths, ports or flags that no connection has
	BadUDP                 // lengths or ports
	BadICMP                // cut short
	BadNeighbour           // neighbour discovery that RFC 4861 tells a receiver to discard
	BadOffload             // what is left to do would change what was judged, or is no work of the packet's protocol
	reasons
)

// Reasons is the number of values of Reason, for arrays of counters.
const Reasons = int(reasons)

var reasonNames = [Reasons]string{
	"well-formed", "short frame", "source is multicast", "other ethertype", "bad ARP", "bad IPv4 header",
	"bad IPv4 option", "source route", "bad IPv6 header", "bad IPv6 extension", "bad fragment", "split header",
	"bad address", "bad TCP", "bad UDP", "bad ICMP", "bad neighbour discovery", "bad offload",
}

func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return "unknown reason"
}
