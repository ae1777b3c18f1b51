// Package guest makes a bare kernel into a place for containers, and ends it.
//
// Enters: a root file system with /proc, /sys, /dev and /run, all empty. Leaves: the mounts, cgroups and limits that
// runc expects of a host; in the end a machine that is off. Each stage of the boot is timed. Must never happen here:
// anything that waits for the host.
package guest
