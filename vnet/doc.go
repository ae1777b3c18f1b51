// Package vnet is the process that carries a pod's frames between CNI's interfaces and the guest's taps, past a firewall.
//
// Enters: a Config, in the pod's network namespace, whose interfaces package netbridge has joined with a Watch. Leaves: reports of
// what was counted. Must never happen here: a frame that the policy does not allow, a right that is kept once the sockets are
// open, or memory that a guest can make grow.
package vnet
