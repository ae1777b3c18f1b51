// Package policy reads what a pod's owner says about the network of a pod: which connections may be made, by direction,
// protocol, address or name, and port.
//
// Enters: the pod's annotations. Leaves: a Policy, or an Error that names the word that is wrong. Must never happen
// here: a word that is not understood and passed over, or a mistake that opens more than what was written.
package policy
