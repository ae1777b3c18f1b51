package policy

import "net/netip"

// Ranges of IPv6 whose addresses stand for one of IPv4, to which a translator or a relay of the network carries what is sent there.
var (
	nat64      = netip.MustParsePrefix("64:ff9b::/96")   // RFC 6052
	localNAT64 = netip.MustParsePrefix("64:ff9b:1::/48") // RFC 8215; with a prefix of 96 bits, as it is used
	sixToFour  = netip.MustParsePrefix("2002::/16")      // RFC 3056
)

// Embedded is the address of IPv4 that one of IPv6 stands for, and false if it stands for none.
func Embedded(a netip.Addr) (netip.Addr, bool) {
	switch b := a.As16(); {
	case !a.Is6():
		return netip.Addr{}, false
	case nat64.Contains(a), localNAT64.Contains(a):
		return netip.AddrFrom4([4]byte(b[12:])), true
	case sixToFour.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	}
	return netip.Addr{}, false
}
