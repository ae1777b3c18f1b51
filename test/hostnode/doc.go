// Package hostnode tests hack/node where the node is the machine itself: that the node works, is apart from the machine,
// and is gone after down. It needs root and no hardware virtualisation; hack/check-node runs it.
package hostnode
