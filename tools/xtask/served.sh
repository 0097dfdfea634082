#!/bin/sh
# served.sh COMMANDS [SERVE OPTIONS…]: runs shell commands beside a `tessera
# serve` on $TESSERA_DATA, whose process is $server and which is stopped
# afterwards. For docs/rows.md.
set -eu
commands=$1
shift
mkdir -p "$TESSERA_DATA"
tessera serve "$@" 2>"$TESSERA_DATA/server.log" &
server=$!
export server
trap 'kill $server 2>/dev/null || true; wait $server || true' EXIT
tries=0
until tessera status >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 300 ] || { cat "$TESSERA_DATA/server.log"; exit 1; }
    sleep 0.1
done
sh -euc "$commands"
