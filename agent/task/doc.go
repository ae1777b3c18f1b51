// Package task serves containerd's Task API for the containers of one guest.
//
// Enters: Task requests whose paths, namespaces and streams are the guest's. Leaves: processes, their states and
// exits, with the errors and codes that containerd's runc shim would give. What a container is, is Runtime's matter.
// Must never happen here: an exit reported before the process's output was sent, or a state that goes backwards.
package task
