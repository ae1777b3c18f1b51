// Package netbridge hands the network of a pod to its microVM.
//
// Enters: the path of a network namespace in which CNI has set up the pod's interfaces. Leaves: for each interface a
// tap for libkrun (krun_add_net_tap), joined to it frame by frame with tc, and the addresses, routes and neighbours
// that the guest takes over. Must never happen here: a change in the node's own network namespace, a thread of the
// caller left in another namespace, or an address of CNI's removed (CNI DEL and the node's statistics read them).
package netbridge
