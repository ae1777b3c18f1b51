// Package config is the administrator's configuration of krun on a node: /etc/krunpod/config.toml and the drop-ins
// beside it.
//
// Enters: TOML files, read once by the shim's start. Leaves: one validated Config. Must never happen here: an
// unknown key, or a value out of range, that passes in silence.
package config
