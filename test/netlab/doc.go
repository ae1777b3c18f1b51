// Package netlab makes network namespaces for tests, with the interfaces that they need. It needs root.
package netlab
