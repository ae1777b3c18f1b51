// Package cri reads what Kubernetes or an OCI client asked for and says what sandbox that is.
//
// Enters: a PodSandboxConfig (sandboxer "shim"), or the OCI spec of a pause container (sandboxer "podsandbox") or of
// a container without a pod. Leaves: a sandbox.Spec, or an error that says in a sentence what a pod in a microVM
// cannot have and what to do. Must never happen here: a request that cannot be honoured and is dropped in silence.
package cri
