// Package firewall judges the frames between a guest and its pod's network.
//
// Enters: a frame from either side. Leaves: a Verdict, and where a connection is refused the frame that tells its
// sender so. The guest speaks only as its own hardware address and its own addresses; a connection is made when a rule
// allows its first packet, and what belongs to a connection passes in both directions. Must never happen here: a frame
// that passes without having been understood, a table that grows with what the guest does, or an allocation for a
// frame of a connection that exists.
package firewall
