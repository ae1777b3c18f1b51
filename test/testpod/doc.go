// Package testpod runs pods through CRI as the kubelet does, for the end-to-end tests, the demo and the benchmarks.
//
// Enters: a containerd socket and the name of a runtime handler. Leaves: pods, containers and what they printed. It
// uses nothing of the product: what it sees is what a user of CRI sees.
package testpod
