#!/bin/sh
# beside.sh DIR PAIRS: one server of one core, a walk through a cold volume all the while; beside it
# runs of reads of the hot volume, one at a time, from another CPU, in turns without and with
# prediction. Both CPUs are kept from halting: the hypervisor takes its time to wake one.
set -eu
dir=$1; pairs=$2
mkdir -p "$dir"
export TESSERA_DATA=beside dir pairs
rm -f beside/*.safetensors
for cpu in 0 1; do
    taskset -c $cpu chrt -i 0 sh -c 'while :; do :; done' &
    idle="${idle:-} $!"
done
trap 'kill $idle' EXIT
sh tools/xtask/served.sh '
for task in /proc/$server/task/*; do
    case $(cat $task/comm) in core-*) chrt -r -p 10 ${task##*/} ;; esac
done
tessera tier spill vm
taskset -c 1 chrt -r 10 tessera --json replay cold.csv --live --volume vm --speed 1 > $dir/beside.cold.json &
cold=$!
for pair in $(seq 1 $pairs); do
    for kind in none learned; do
        out=$dir/beside-$kind-$pair
        tessera predictor set --prefetch $kind
        [ $kind = none ] || tessera predictor train --vm vm cold.csv
        sleep 1
        taskset -c 1 chrt -r 10 tessera --json replay hot.csv --live --volume hot --requests 60000 > $out.hot.json
        tessera --json predictor status > $out.predictor.json
    done
done
kill $cold' > "$dir/beside.log" 2>&1
