#!/bin/sh
# run.sh POOL TRACE.csv none|learned OUT CPU: a fresh server, its block maps in memory, its
# stages empty and nothing learned, and one replay at the trace's times. The core's thread and
# the client go before whatever else the machine does; the training thread does not.
set -eu
pool=$1; trace=$2; kind=$3; out=$4; cpu=$5
export TESSERA_DATA=$pool
rm -f "$pool"/*.safetensors
exec taskset -c "$cpu" sh tools/xtask/served.sh "
for task in /proc/\$server/task/*; do
    case \$(cat \$task/comm) in core-*) chrt -r -p 10 \${task##*/} ;; esac
done
tessera replay warm-$trace --live --volume vm --prefetch none > /dev/null
chrt -r 10 tessera --json replay $trace --live --volume vm --speed 1 --prefetch $kind > $out.json
tessera --json predictor status > $out.predictor.json"
