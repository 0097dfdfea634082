#!/bin/sh
# rounds.sh DIR: three rounds of both traces without and with prediction at the same time; the
# pools of a trace, NAME and NAME2, change places every round.
set -eu
dir=$1; here=$(dirname "$0")
mkdir -p "$dir"
for i in 1 2 3; do
    if [ $((i % 2)) = 1 ]; then a= b=2; else a=2 b=; fi
    for t in msdtrs cloudphysics; do
        sh "$here/run.sh" $t$a $t.csv none "$dir/$t-none-$i" 0 &
        sh "$here/run.sh" $t$b $t.csv learned "$dir/$t-learned-$i" 1 &
    done
    wait
done
