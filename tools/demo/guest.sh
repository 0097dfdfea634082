#!/bin/sh
# /sbin/init of the recorded guest: one boot of its day. The file system it runs
# from is the volume that is recorded.
# The shell is busybox, which prefers its own applets: GNU tools by full path.
PATH=/bin:/sbin
export PATH
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/shm
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
chmod 1777 /tmp /dev/shm
ip link set lo up

PG=/usr/lib/postgresql/15/bin
DATA=/var/lib/postgresql/data
postgres() {
    /usr/bin/setpriv --reuid=postgres --regid=postgres --clear-groups "$@" || echo "FAILED: $*"
}
bench() { postgres $PG/pgbench -n -h /tmp -p 54329 "$@" postgres; }
sql() { postgres $PG/psql -q -X -h /tmp -p 54329 postgres "$@" >/dev/null; }
phase() { echo "$(cut -d' ' -f1 /proc/uptime) boot $boot: $*"; }
# What an hour of other programs would do to the page cache.
forget() { sync; echo 3 > /proc/sys/vm/drop_caches; }

boot=$(($(cat /root/boot 2>/dev/null || echo 0) + 1))
echo $boot > /root/boot

phase "start PostgreSQL"
postgres $PG/pg_ctl -s -w -t 300 -D $DATA -l /dev/shm/postgres.log start

for round in 1 2; do
    phase "round $round: look-ups"
    bench -c 4 -t 300 --random-seed=$((boot * 10 + round)) -f /root/lookup.sql
    phase "round $round: report"
    sql -f /root/report.sql
    phase "round $round: look-ups and TPC-B"
    bench -c 4 -t 100 --random-seed=$((boot * 10 + round + 5)) -f /root/lookup.sql@4 -b tpcb-like@1
    forget
done

phase "search the source tree"
/usr/bin/grep -r -l 'spin_lock_irqsave' /usr/src/linux/include | wc -l
forget
phase "back up the source tree"
/usr/bin/tar -c -f - /usr/src/linux/include 2>/dev/null | wc -c
phase "vacuum"
sql -c 'VACUUM ANALYZE'
phase "dump the database"
postgres $PG/pg_dump -h /tmp -p 54329 postgres | wc -c

phase "stop"
postgres $PG/pg_ctl -s -w -t 300 -m fast -D $DATA stop
sync
mount -o remount,ro /
if [ $boot -lt "$(cat /root/boots)" ]; then reboot -f; else poweroff -f; fi
