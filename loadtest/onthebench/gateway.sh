#!/usr/bin/env bash
# merido's manifest for the public gateway harness at onthebench.ai: copy this file to gateways/merido/ there. Its runner
# sources it, gives MOCK_PORT (the mock provider), CORES (a taskset list) and GW_DIR (this file's directory), sends
# {model, messages, max_tokens: 16} to GW_PORT + GW_PATH with GW_AUTH as a bearer token, and calls the functions below.
#
# NOT RUN THERE: what is here was shown against loadtest/onthebench/stub-runner.sh, a small stand-in for that runner.
#
# The gateway runs as it ships: key check, usage totals, log rows and live events on. MERIDO_BIN names a binary that is
# built already; otherwise gw_build builds the tree this file lies in, or MERIDO_SRC.

GW_KIND=native
GW_DISPLAY="merido"
GW_LANG=Rust
GW_CLASS="LLM gateway"
GW_PORT="${GW_PORT:-8117}"
GW_PATH=/v1/chat/completions
GW_MODEL=openai/gpt-4o-mini
GW_AUTH="${GW_AUTH:-}" # made by gw_launch: merido's keys cannot be chosen

_merido_src() { echo "${MERIDO_SRC:-$(cd "$GW_DIR/../.." && pwd)}"; }
_merido_bin() { echo "${MERIDO_BIN:-$(_merido_src)/target/release/merido}"; }
_merido_pid() { cat "$GW_DIR/merido.pid" 2>/dev/null; }

# One environment for the gateway and for the commands that set it up. Nothing of the caller's own settings gets in.
_merido() {
  local name
  (
    for name in $(compgen -e | grep -E '^MERIDO_|_API_KEY$|^(DATABASE|REDIS)_URL$'); do
      unset "$name" # MERIDO_BIN, too: merido refuses settings it does not know
    done
    export MERIDO_DATA_DIR="$GW_DIR/data" MERIDO_HOST=127.0.0.1 MERIDO_PORT="$GW_PORT" MERIDO_REQUIRE_API_KEY=true
    "$@"
  )
}

gw_build() {
  [ -x "$(_merido_bin)" ] && return 0
  command -v cargo >/dev/null || { echo "merido needs cargo, or MERIDO_BIN"; return 1; }
  (cd "$(_merido_src)" && cargo build --locked --release --package merido)
}

gw_version() { "$(_merido_bin)" --version; }

gw_launch() {
  local bin tries
  bin="$(_merido_bin)"
  gw_stop
  rm -rf "$GW_DIR/data"
  _merido "$bin" providers add --provider openai --api-key mock --base-url "http://127.0.0.1:$MOCK_PORT/v1" --label mock \
    >/dev/null || return 1
  GW_AUTH="$(_merido "$bin" keys create --name bench --json | sed -n 's/.*"key":"\([^"]*\)".*/\1/p')"
  [ -n "$GW_AUTH" ] || { echo "merido made no key"; return 1; }
  # `exec` all the way, so that the pid is merido's own. One worker for each core it may use.
  # shellcheck disable=SC2016
  _merido setsid sh -c 'echo $$ > "$1"; exec taskset -c "$2" "$3" start' sh "$GW_DIR/merido.pid" "${CORES:-0}" "$bin" \
    </dev/null >"$GW_DIR/merido.log" 2>&1 &
  for tries in $(seq 200); do
    curl -sf -m1 -o /dev/null "http://127.0.0.1:$GW_PORT/readyz" && return 0
    sleep 0.05
  done
  echo "merido was not ready after $tries tries"
  return 1
}

# MiB, from the kernel; nothing when it does not run.
gw_rss() { awk '/^VmRSS/ { printf "%.1f", $2 / 1024 }' "/proc/$(_merido_pid)/status" 2>/dev/null; }
gw_hwm() { awk '/^VmHWM/ { printf "%.1f", $2 / 1024 }' "/proc/$(_merido_pid)/status" 2>/dev/null; }

gw_diag() {
  echo "pid $(_merido_pid), log:"
  tail -n 20 "$GW_DIR/merido.log" 2>/dev/null
}

gw_stop() {
  local pid tries
  pid="$(_merido_pid)"
  [ -n "$pid" ] || return 0
  # Only what is ours: the number may have gone to another program since.
  if [ "$(readlink "/proc/$pid/exe" 2>/dev/null)" = "$(readlink -f "$(_merido_bin)")" ]; then
    kill "$pid" 2>/dev/null
    for tries in $(seq 100); do
      [ -d "/proc/$pid" ] || break
      sleep 0.05
    done
    if [ -d "/proc/$pid" ]; then
      echo "merido still runs after $tries looks: killed"
      kill -KILL "$pid" 2>/dev/null
    fi
  fi
  rm -f "$GW_DIR/merido.pid"
}
