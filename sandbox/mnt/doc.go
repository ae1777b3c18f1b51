// Package mnt makes detached copies of mounts, whose attributes are set before anybody can use them, and pivots into
// a directory: what the share (package sandbox) and the jail both are made of.
//
// Enter: paths of the host. Leave: descriptors of mounts that are attached nowhere yet. Never: a mount that could be
// seen, if only for a moment, without its attributes; a remount, which would not propagate.
package mnt
