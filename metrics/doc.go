// Package metrics tells Prometheus what the sandboxes of a node do, and did since it was booted. Everything comes from the state
// directory and from the host's cgroups, nothing from a guest: no label is a guest's word.
package metrics
