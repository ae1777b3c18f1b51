// Package cluster tests pods of the RuntimeClass krun in a real Kubernetes cluster, through kubectl, as their users see them.
// Every test runs under runc too, and what was seen under both is compared: hack/cluster-test runs them on the cluster of
// hack/cluster.
package cluster
