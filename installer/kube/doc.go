// Package kube is what the installer asks of Kubernetes' API: a node's labels and annotations, events, and a list of pods.
// Four requests do not pay for client-go, which would be half of the installer.
//
// Enters: a pod's service account. Leaves: JSON over HTTPS, checked against the cluster's CA. Must never happen here: a
// write to anything but one named node and an event about it.
package kube
