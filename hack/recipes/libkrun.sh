# shellcheck shell=bash
# lib/libkrunlib.a: libkrun, from the crate that krun/libkrun pins. Cargo's own work is kept in the cache directory, so a
# change of one crate does not compile the others again.
versions() { :; }

inputs() {
	rustc --version
	cat "$REPO/krun/libkrun/Cargo.toml" "$REPO/krun/libkrun/Cargo.lock" "$REPO"/krun/libkrun/src/*.rs
}

build() {
	mkdir -p "$1/lib"
	(cd "$REPO/krun/libkrun" && CARGO_TARGET_DIR=$CACHE/libkrun-target nice cargo build --release --locked)
	cp "$CACHE/libkrun-target/release/libkrunlib.a" "$1/lib/"
}
