// Package dns answers the DNS queries of a guest whose policy names names.
//
// Enters: a query as the guest wrote it. Leaves: an answer. A name that the policy has is asked for at the pod's
// nameservers, and the addresses in the answer are opened for the rules that name it, before the guest learns them;
// every other name does not exist for the guest. Must never happen here: an answer with an address that is not open, a
// byte of the guest's message sent on to a nameserver other than the name and type it asks for, or work without a
// bound.
//
// Messages are read and written by golang.org/x/net/dns/dnsmessage: it is the parser of Go's own resolver, knows only
// what a stub resolver needs and allocates little. A full implementation such as miekg/dns would bring the parsers of a
// hundred record types within the guest's reach and a server that is not needed here.
package dns
