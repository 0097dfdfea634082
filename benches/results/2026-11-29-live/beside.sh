#!/bin/sh
# beside.sh DIR PAIRS: pairs of runs without and with prediction. Each: a fresh server of one core;
# 480 requests of cold.csv on the cold volume at their times, and beside them reads of the hot
# volume, one at a time, from another CPU.
set -eu
dir=$1; pairs=$2
mkdir -p "$dir"
export TESSERA_DATA=beside
for i in $(seq 1 "$pairs"); do
    for kind in none learned; do
        out=$dir/beside-$kind-$i
        rm -f beside/*.safetensors
        sh tools/xtask/served.sh "
for task in /proc/\$server/task/*; do
    case \$(cat \$task/comm) in core-*) chrt -r -p 10 \${task##*/} ;; esac
done
tessera tier spill vm
tessera predictor set --prefetch $kind
[ $kind = none ] || tessera predictor train --vm vm cold.csv
taskset -c 1 chrt -r 10 tessera --json replay cold.csv --live --volume vm --speed 1 --requests 480 > $out.cold.json &
cold=\$!
sleep 2
taskset -c 1 chrt -r 10 tessera --json replay hot.csv --live --volume hot --requests 60000 > $out.hot.json
wait \$cold
tessera --json predictor status > $out.predictor.json" > "$out.log"
    done
done
