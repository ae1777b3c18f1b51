// Package sandbox is one microVM's life: its runner process, its jail's surroundings, its share, its agent, its state
// on disk and its end.
//
// Enters: a Spec. Leaves: a running Sandbox whose agent answers, and after Delete nothing at all. The way of a pod is
// Start (start.go), read from top to bottom; what each step made is written to the state file before the next one, so
// that Remove can undo it when the shim has died. Must never happen here: a host path, length or id taken from the
// guest, or a step that cannot be undone twice.
package sandbox
