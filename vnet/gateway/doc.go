// Package gateway describes a network that a guest has for itself, without CNI: the addresses on it, what of the host's ports leads
// to the guest, and what no policy of a guest can open.
//
// Enters: the text of an administrator or of an annotation. Leaves: a Config, for package nat, which is the gateway, and for what
// tells the guest its addresses. Must never happen here: a packet; who only writes a Config has none of a network stack's code.
package gateway
