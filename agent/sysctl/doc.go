// Package sysctl writes kernel parameters.
//
// Enters: names and values in sysctl(8) notation. Leaves: files under /proc/sys. Must never happen here: a name that
// leads out of /proc/sys.
package sysctl
