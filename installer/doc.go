// Package installer puts Krunpod on a node of a cluster, and takes it off again.
//
// Enters: the files of a release, the root of a host's file tree, and a way to run programs on that host. Leaves: binaries
// under one directory, a drop-in for containerd, at most one line of its configuration, and what was found out about the
// node. Must never happen here: a change to a configuration that was not understood, a change of containerd that
// `containerd config dump` did not show beforehand, a restart of containerd without need or on a node that cannot run krun
// pods, a removal of files that a running pod uses.
package installer
