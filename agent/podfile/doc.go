// Package podfile writes the text of the files every container of a pod shares: hostname, hosts and resolv.conf.
//
// Enters: what Kubernetes said of the pod's name and DNS. Leaves: file contents as kubelet and containerd write them.
// Must never happen here: a value with a line break or a space that smuggles another line into a file.
package podfile
