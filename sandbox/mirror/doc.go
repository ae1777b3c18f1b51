// Package mirror reads the volumes that the kubelet writes, to be copied into the guest.
//
// Enters: a directory that the kubelet's atomic writer keeps (k8s.io/kubernetes/pkg/volume/util/atomic_writer.go): links
// that lead through the link ..data to the directory of the present version. Leaves: all of one version, in the order in
// which the kubelet writes it. Must never happen here: a mixture of two versions, or a path that leads out of the volume.
package mirror
