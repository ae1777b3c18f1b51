// Command krun-agent is PID 1 of the guest: one static binary, and the guest's only file.
//
// It is three programs, told apart by its arguments: the agent; "init", libcontainer's start of a container's process;
// and the init of a PID namespace that containers share, which is over before the Go runtime begins (init.c).
package main
