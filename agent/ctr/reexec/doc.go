// Package reexec is the agent's binary in its second role: libcontainer's start of a container's process.
//
// Enters: the argument "init" and what libcontainer hands down. Leaves: nothing, the process becomes the container's.
// It is a package of its own, and imports nothing else of the agent, because Go initialises packages in the order of
// their import paths as far as dependencies allow: this one comes before net/http and gRPC, which the agent needs and
// the start of a process does not. Must never happen here: an import that pulls those in.
package reexec
