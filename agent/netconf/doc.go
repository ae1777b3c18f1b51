// Package netconf gives the guest's NICs the names, addresses, routes and neighbours of the pod's interfaces.
//
// Enters: interfaces as the host read them from the pod's network namespace. Leaves: the guest's rtnetlink(7) state.
// Nothing is taken from the guest but the links' hardware addresses. Must never happen here: a half-read request that
// changes the network (everything is parsed before the first change), or a wait for duplicate address detection.
package netconf
