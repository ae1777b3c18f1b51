// Package kube reads a cluster through its API server, within the process that asks.
//
// Enters: what kubectl would be told, "pod/web" and a JSONPath. Leaves: the value, as kubectl prints it. Tests ask every second, and
// on the machine that emulates their nodes a kubectl for each look would take the processor from what it looks at. Nothing here
// changes the cluster: that is kubectl's, as for any user.
package kube
