#!/usr/bin/env bash
# Runs every test. On a fresh Debian or Ubuntu with a Rust toolchain it installs what is missing first; run again, it
# installs nothing. Servers the tests need (Redis, Postgres, PgBouncer, nginx) are started by the tests, on ports of their own:
# none that happens to run is used.
#
#   scripts/test.sh [arguments for cargo test]
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }
die() { printf '\n%s\n' "$*" >&2; exit 1; }

has_postgres() { command -v postgres >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; }
# These lie in /usr/sbin, which is in root's PATH only.
has_nginx() { command -v nginx >/dev/null || [ -x /usr/sbin/nginx ]; }
has_pgbouncer() { command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ]; }
has_chromium() { command -v chromium >/dev/null || [ -x "${MERIDO_TEST_CHROMIUM:-}" ]; }
has_venv() { python3 -c 'import ensurepip, venv' 2>/dev/null; }

command -v cargo >/dev/null || [ ! -f "$HOME/.cargo/env" ] || . "$HOME/.cargo/env"
command -v cargo >/dev/null || die 'cargo is missing: install a Rust toolchain (https://rustup.rs) and run this again'

missing=()
command -v cc >/dev/null || missing+=(build-essential)
command -v curl >/dev/null || missing+=(curl)
command -v redis-server >/dev/null || missing+=(redis-server)
has_postgres || missing+=(postgresql)
has_pgbouncer || missing+=(pgbouncer)
has_nginx || missing+=(nginx-light)
has_venv || missing+=(python3-venv)
# The dashboard is driven in a real browser; without any font it would show boxes.
has_chromium || missing+=(chromium fonts-dejavu-core)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
# What counts a request's instructions and system calls.
command -v valgrind >/dev/null || missing+=(valgrind)
command -v strace >/dev/null || missing+=(strace)
if [ ${#missing[@]} -gt 0 ]; then
    say "installing ${missing[*]}"
    command -v apt-get >/dev/null || die "no apt-get here; install by hand: ${missing[*]}"
    as_root=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || die "neither root nor sudo; install by hand: ${missing[*]}"
        as_root=(sudo)
    fi
    "${as_root[@]}" apt-get update -q
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
fi

# The SDKs, in an environment of their own; made anew only when the pins or the Python change.
wanted=tests/sdk/requirements.txt
stamp="$(python3 --version) $(cksum < "$wanted")"
if [ "$(cat .venv/stamp 2>/dev/null || true)" != "$stamp" ]; then
    say 'installing the SDKs into .venv'
    rm -rf .venv
    python3 -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check -r "$wanted"
    echo "$stamp" > .venv/stamp
fi

# What drives the browser, likewise; the lock file pins it by its hash.
wanted=tests/browser/package-lock.json
stamp="$(node --version) $(cksum < "$wanted")"
if [ "$(cat tests/browser/node_modules/.stamp 2>/dev/null || true)" != "$stamp" ]; then
    say 'installing what drives the browser into tests/browser/node_modules'
    npm ci --prefix tests/browser --ignore-scripts --no-audit --no-fund --loglevel=error
    echo "$stamp" > tests/browser/node_modules/.stamp
fi

# Keys and settings of whoever runs this must not reach a gateway under test.
for name in $(compgen -e | grep -E '^MERIDO_|_API_KEY$|^(DATABASE|REDIS)_URL$' | grep -v '^MERIDO_TEST_' || true); do
    unset "$name"
done
export MERIDO_TEST_PYTHON="$PWD/.venv/bin/python"
# Some of the servers do not look where Debian puts them.
for bin in /usr/lib/postgresql/*/bin; do
    [ ! -d "$bin" ] || PATH=$PATH:$bin
done
export PATH=$PATH:/usr/sbin

say 'cargo test'
mkdir -p target
log=target/test.log
status=0
cargo test --locked --workspace --no-fail-fast "$@" 2>&1 | tee "$log" || status=$?

# Instructions and system calls of a request against benches/budget.toml. A part of the tests is a part of the tests only.
if [ $# = 0 ]; then
    say 'what a request costs'
    count=instructions,syscalls
    # In some sandboxes nobody may trace.
    strace -o /dev/null true 2>/dev/null || { count=instructions; echo 'strace may not trace here: system calls are not counted'; }
    cargo build --locked --workspace --bins --profile quick &&
        target/quick/loadtest guard --count "$count" 2>&1 | tee -a "$log" || status=1
fi

say 'summary'
awk '/^test result:/ { passed += $4; failed += $6; ignored += $8 }
     END { printf "%d passed, %d failed, %d ignored\n", passed, failed, ignored }' "$log"
grep -E '^test .* \.\.\. FAILED$' "$log" || true
if [ "$status" = 0 ]; then echo 'all is well'; else echo "something failed; the whole log: $log"; fi
exit "$status"
