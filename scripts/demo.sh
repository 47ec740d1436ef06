#!/usr/bin/env bash
# What `make run` shows: a write, a read, and that the write is still there after the process was killed.
# Uses ./data (kept; nothing in it is ever deleted here) and ends by itself.
set -euo pipefail
cd "$(dirname "$0")/.."

server=${KV_SERVER:-target/release/kv_server}
client=${KV_CLIENT:-target/release/kv_client}
export KV_PORT=${KV_PORT:-6379}
pid=
log=$(mktemp)

stop() { if [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; then kill "$pid"; wait "$pid" || true; fi; }
trap 'stop; rm -f "$log"' EXIT

if "$client" --server="127.0.0.1:$KV_PORT" ping >/dev/null 2>&1; then
    echo "something already listens on port $KV_PORT: stop it, or choose another: make run KV_PORT=7000" >&2
    exit 1
fi

start() {
    "$server" --port "$KV_PORT" --bind 127.0.0.1 --dir ./data >"$log" 2>&1 &
    pid=$!
    until "$client" --server="127.0.0.1:$KV_PORT" ping >/dev/null 2>&1; do
        kill -0 "$pid" 2>/dev/null || { echo "the server did not start:" >&2; tail -n 20 "$log" >&2; exit 1; }
        sleep 0.05
    done
}
show() { printf '$ kv_client'; printf ' %q' "$@"; printf '\n'; "$client" --server="127.0.0.1:$KV_PORT" "$@"; }

start
echo "kv_server (process $pid) listens on 127.0.0.1:$KV_PORT and keeps its data in ./data"
show put greeting "hello, written at $(date +%T)"
show get greeting

echo "\$ kill -9 $pid     # the write was acknowledged, so it must survive this"
kill -9 "$pid"
wait "$pid" 2>/dev/null || true
start
show get greeting
stop
pid=
echo "Stopped. \`make serve\` keeps a server in the foreground; \`$client\` without words is an interactive shell."
