#!/usr/bin/env bash
# Builds merido with the profile of a training run (profile-guided optimisation): the same binary, laid out for the way
# requests really take. Three steps, about a quarter of an hour on two cores: an instrumented build, the load of
# `loadtest compare` through it (everything on, plain and TLS, whole and streamed), the build that uses what was counted.
#
#   scripts/pgo.sh            → target/pgo/release/merido
#
# Needs llvm-profdata of LLVM 19 or later: `rustup component add llvm-tools`, or Debian's llvm-19 (or later).
set -euo pipefail
cd "$(dirname "$0")/.."

die() { printf '%s\n' "$*" >&2; exit 1; }

profdata() {
    local own
    own="$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin/llvm-profdata"
    [ -x "$own" ] && { echo "$own"; return; }
    compgen -c llvm-profdata- | grep -E '^llvm-profdata-[0-9]+$' | sort -t- -k3 -n | awk -F- '$3 >= 19' | tail -1
}
merge="$(profdata)"
[ -n "$merge" ] || die 'llvm-profdata (19 or later) is missing: rustup component add llvm-tools, or apt-get install llvm-19'
command -v redis-server >/dev/null || die 'redis-server is missing: part of the training goes through it'

counts="$PWD/target/pgo/counts"
rm -rf "$counts"
RUSTFLAGS="-Cprofile-generate=$counts" cargo build --locked --release --bin merido --target-dir target/pgo/counting
cargo build --locked --release -p loadtest
rm -rf "$counts" # of the build's own helpers
target/release/loadtest compare --peers merido --merido target/pgo/counting/release/merido --rounds 1 --seconds 6 \
    --basis everything-on --basis everything-on-redis --work unary --work sse-burst --work upstream-50ms --work sse-paced \
    --upstream plain,tls
"$merge" merge -o target/pgo/merido.profdata "$counts"
RUSTFLAGS="-Cprofile-use=$PWD/target/pgo/merido.profdata" cargo build --locked --release --bin merido --target-dir target/pgo
echo "target/pgo/release/merido"
