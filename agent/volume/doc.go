// Package volume keeps volumes in the guest's memory: copies of those that the kubelet writes on the host.
//
// Enters: what a volume is to hold. Leaves: a directory that holds it, changed by the steps of the kubelet's atomic writer,
// so that inotify(7) shows them to containers. Must never happen here: a file that is seen half written, or a path that
// leads out of the volume.
package volume
