// Package ctr makes containers in the guest with runc's libcontainer.
//
// Enters: an OCI runtime specification whose paths are the guest's. Leaves: what runc would make of it on a host of its
// own, so that a container cannot tell the difference. It is the only package of the agent that needs cgo (for
// libcontainer's nsenter and for seccomp). Must never happen here: a container that joins a namespace the agent did
// not make, or runs a hook.
package ctr
