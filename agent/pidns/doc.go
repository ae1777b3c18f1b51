// Package pidns makes a PID namespace for the containers of a pod to share.
//
// Enters: nothing. Leaves: a namespace whose PID 1 is a process of ours that only collects orphans. Must never happen
// here: a namespace that ends while the pod lives, or whose path can come to mean another.
package pidns
