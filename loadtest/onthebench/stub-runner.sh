#!/usr/bin/env bash
# A small stand-in for the runner of onthebench.ai: does with a manifest what that one is known to do (source it, build,
# launch, ask, read memory, stop), against `loadtest mock`. Prints a line a step; ends with 0 when all of them held.
#
#   loadtest/onthebench/stub-runner.sh [DIR with gateway.sh] [loadtest binary] [requests]
set -uo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export GW_DIR="${1:-$here}"
loadtest="${2:-$here/../../target/release/loadtest}"
requests="${3:-200}"
export CORES="${CORES:-0-$(($(nproc) - 1))}"

fail() { echo "FAILED: $*"; gw_diag 2>/dev/null; exit 1; }
work="$(mktemp -d)"
mkfifo "$work/stdin"
"$loadtest" mock --until-stdin-closes <"$work/stdin" >"$work/mock" &
exec 9>"$work/stdin" # the mock ends when this closes
trap 'gw_stop; exec 9>&-; rm -rf "$work"' EXIT
gw_stop() { :; } # until the manifest has one
for _ in $(seq 100); do [ -s "$work/mock" ] && break; sleep 0.05; done
MOCK_PORT="$(sed -n 's/.*"port":\([0-9]*\).*/\1/p' "$work/mock")"
export MOCK_PORT
[ -n "$MOCK_PORT" ] || fail "the mock did not start"

gw_version() { echo unknown; }
gw_diag() { :; }
# shellcheck source=gateway.sh
source "$GW_DIR/gateway.sh"
for name in GW_KIND GW_PORT GW_PATH GW_MODEL; do
  [ -n "${!name:-}" ] || fail "the manifest does not say $name"
done
for name in gw_build gw_launch gw_rss gw_stop; do
  declare -F "$name" >/dev/null || fail "the manifest has no $name"
done
gw_build || fail "gw_build"
echo "built: $(gw_version)"
gw_launch || fail "gw_launch"
idle="$(gw_rss)"
echo "launched on :$GW_PORT, $idle MiB"

ask() { # what is asked for, the token: status, then the body
  curl -s -m5 -w '\n%{http_code}' "http://127.0.0.1:$GW_PORT$GW_PATH" -H 'content-type: application/json' \
    -H "authorization: Bearer $2" \
    -d "{\"model\":\"$GW_MODEL\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"max_tokens\":16$1}"
}
answer="$(ask '' "$GW_AUTH")"
[[ "${answer##*$'\n'}" = 200 && "$answer" = *'"choices"'* ]] || fail "a request: $answer"
answer="$(ask ',"stream":true' "$GW_AUTH")"
[[ "${answer##*$'\n'}" = 200 && "$answer" = *'data: [DONE]'* ]] || fail "a stream: $answer"
answer="$(ask '' wrong)"
[ "${answer##*$'\n'}" = 401 ] || fail "a wrong key is answered: $answer"
before="$(curl -s "http://127.0.0.1:$MOCK_PORT/__mock/stats" | sed 's/.*"calls":\([0-9]*\).*/\1/')"
"$loadtest" run --url "http://127.0.0.1:$GW_PORT$GW_PATH" --key "$GW_AUTH" --model "$GW_MODEL" \
  --requests "$requests" --connections 8 --duration 60 || fail "the load"
after="$(curl -s "http://127.0.0.1:$MOCK_PORT/__mock/stats" | sed 's/.*"calls":\([0-9]*\).*/\1/')"
[ "$((after - before))" = "$requests" ] || fail "the mock saw $((after - before)) of $requests requests"
loaded="$(gw_rss)"
[ -n "$idle" ] && [ -n "$loaded" ] || fail "gw_rss says nothing"
echo "$requests requests, $loaded MiB"
gw_stop
[ -z "$(gw_rss)" ] || fail "gw_stop left it running"
curl -s -m1 -o /dev/null "http://127.0.0.1:$GW_PORT/readyz" && fail "something still listens"
echo "stopped; all held"
