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
	(cd "$REPO/krun/libkrun" && cargo fetch --locked --target "$(rustc -vV | sed -n 's/^host: //p')")
	# Messages of a panic name source files: as CRATE-VERSION/src/…, wherever they are here.
	local dir flags=()
	for dir in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/; do flags+=("--remap-path-prefix=$dir="); done
	(cd "$REPO/krun/libkrun" && CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f' && echo "${flags[*]}") \
		CARGO_TARGET_DIR=$CACHE/libkrun-target nice cargo build --release --locked)
	cp "$CACHE/libkrun-target/release/libkrunlib.a" "$1/lib/"
}
