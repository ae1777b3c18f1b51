// Package podns makes the namespaces that the containers of a pod share, beyond those that the guest is.
//
// Enters: the ids of the pod's user namespace, or none. Leaves: a process that holds the namespaces, the first of its
// PID namespace, which only collects orphans. Must never happen here: a namespace that ends while the pod lives, or
// whose path can come to mean another.
package podns
