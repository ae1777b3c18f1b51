// Package krunctl is what krunctl prints with --output json, as far as the installer reads it: both ends have these types.
//
// Enters and leaves: JSON. Must never happen here: work.
package krunctl
