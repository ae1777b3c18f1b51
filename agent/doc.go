// Package agent is the guest's side of a pod: PID 1 of the microVM.
//
// Enters: the calls of the shim on the one control connection that the agent dials. Leaves: containers, their streams
// and events. When the connection ends the pod has ended, and so has the VM. Must never happen here: a guest that
// outlives its shim, or a listening socket.
package agent
