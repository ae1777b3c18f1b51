// Package jail confines the process that becomes a VM, before the guest's first instruction.
//
// Enters: a krun.Config with the host's paths, in a process that is PID 1 of fresh mount, PID, IPC and UTS namespaces.
// Leaves: the same Config with the jail's paths, in a process that sees the pod's share, its sockets, its own /proc and
// the devices of its VM, and can do what a file server for the guest must do. libkrun and its guest are one security
// context: each layer here is written for a runner that the guest has taken over (docs/security.md). Must never happen
// here: a layer that fails and is passed over, or a thread that a layer does not reach.
package jail
