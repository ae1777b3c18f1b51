# shellcheck shell=bash
# The node's ssh host key and the key that root@node accepts. Made here, never leave the cache, no passphrase.
versions() { :; }

build() {
	ssh-keygen -q -t ed25519 -N '' -C krunpod-node -f "$1/host"
	ssh-keygen -q -t ed25519 -N '' -C krunpod-root -f "$1/root"
	printf '* %s\n' "$(cut -d' ' -f1,2 "$1/host.pub")" >"$1/known_hosts"
}
