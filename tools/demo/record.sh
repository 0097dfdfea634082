#!/bin/sh
# Records trace.csv.zst: a day-to-day virtual machine, three boots long, whose
# only disk is a volume that Tessera serves over NBD. See README.md beside it.
#
#   record.sh TESSERA WORK_DIR TRACE
#
# TESSERA is the built server, WORK_DIR a new directory (about 2 GiB), TRACE the
# file to make. Needs root, Debian 12, and the packages
#   postgresql-15 e2fsprogs tar grep util-linux zstd
# It installs nothing: kernel, header tree, busybox and, where absent, QEMU are
# fetched with apt-get download and unpacked in WORK_DIR.
set -eu

[ $# -eq 3 ] || { echo "usage: record.sh TESSERA WORK_DIR TRACE" >&2; exit 2; }
tessera=$(realpath "$1")
trace=$(realpath -m "$3")
mkdir "$2"
work=$(realpath "$2")
here=$(dirname "$(realpath "$0")")
chmod 755 "$work"

VOLUME=demo
VOLUME_SIZE=512M
SCALE=10            # pgbench: 1,000,000 accounts, which both .sql files count on
BOOTS=3
MEMORY_MIB=256
KERNEL=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: linux-image-\(.*\)-cloud-amd64$/\1/p' | head -n 1)
PG=/usr/lib/postgresql/15

export TESSERA_DATA="$work/data"
server= recorder= qemu=
cleanup() {
    for pid in $qemu $recorder $server; do kill "$pid" 2>/dev/null || true; done
    wait
}
trap cleanup EXIT

# 1. Packages, unpacked beside each other.
fetch() { # fetch DIR PACKAGE...
    to=$1; shift
    mkdir -p "$work/deb" "$to"
    for package; do
        (cd "$work/deb" && apt-get -o APT::Sandbox::User=root download -qq "$package")
        dpkg -x "$work/deb/${package}"_*.deb "$to"
    done
}
fetch "$work/boot" "linux-image-$KERNEL-cloud-amd64"
fetch "$work/tree" "linux-headers-$KERNEL-common"
fetch "$work/busybox" busybox-static
if ! command -v qemu-system-x86_64 >/dev/null; then
    missing=
    for package in $(apt-cache depends qemu-system-x86 | sed -n 's/^ *Depends: //p'); do
        dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
    done
    # shellcheck disable=SC2086 # a list of names
    fetch "$work/qemu" qemu-system-x86 qemu-system-common qemu-system-data seabios ipxe-qemu $missing
fi

# 2. The guest's file system: busybox, GNU tar and grep, PostgreSQL with what it
# links to, a database, and the kernel's header tree as a tree of small files.
root="$work/root"
mkdir -p "$root/bin" "$root/sbin" "$root/usr/bin" "$root/usr/src" "$root/etc" "$root/tmp" \
    "$root/proc" "$root/sys" "$root/dev" "$root/root" "$root/var/lib/postgresql" \
    "$root/usr/share/postgresql" "$root/usr/share/zoneinfo" "$root$PG"
cp "$work/busybox/bin/busybox" "$root/bin/"
for applet in $("$root/bin/busybox" --list); do ln -s /bin/busybox "$root/bin/$applet" 2>/dev/null || true; done
cp -a "$PG/bin" "$PG/lib" "$root$PG/"
rm -rf "$root$PG/lib/bitcode" "$root$PG/lib/llvmjit"*
cp -a /usr/share/postgresql/15 "$root/usr/share/postgresql/"
cp -a /usr/share/zoneinfo/Etc "$root/usr/share/zoneinfo/"
for program in tar grep setpriv; do cp "$(realpath "$(command -v $program)")" "$root/usr/bin/$program"; done
find "$root/usr/bin" "$root$PG" -type f -perm /111 -exec ldd {} + 2>/dev/null |
    sed -n 's/.*\(=> \|\t\)\(\/[^ ]*\) (0x.*/\2/p' | sort -u |
    while read -r library; do mkdir -p "$root$(dirname "$library")"; cp -L "$library" "$root$library"; done
cp -a "$work/tree/usr/src/linux-headers-$KERNEL-common" "$root/usr/src/linux"
grep '^postgres:\|^root:' /etc/passwd > "$root/etc/passwd"
grep '^postgres:\|^root:' /etc/group > "$root/etc/group"
install -m 755 "$here/guest.sh" "$root/sbin/init"
cp "$here/report.sql" "$here/lookup.sql" "$root/root/"
echo "$BOOTS" > "$root/root/boots"
mknod -m 600 "$root/dev/console" c 5 1

database="$root/var/lib/postgresql/data"
chown postgres: "$root/var/lib/postgresql"
as_postgres() { (cd / && runuser -u postgres -- "$@"); }
as_postgres "$PG/bin/initdb" -D "$database" --no-locale -E UTF8 -A trust -k >/dev/null
cat >> "$database/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '/tmp'
port = 54329
shared_buffers = 32MB
min_wal_size = 32MB
max_wal_size = 64MB
jit = off
max_parallel_workers_per_gather = 0
timezone = 'GMT'
log_timezone = 'GMT'
CONF
install -o postgres /dev/null "$work/postgres.log"
as_postgres "$PG/bin/pg_ctl" -s -w -D "$database" -l "$work/postgres.log" start
as_postgres "$PG/bin/pgbench" -q -i -s "$SCALE" -h /tmp -p 54329 postgres
as_postgres "$PG/bin/pg_ctl" -s -w -D "$database" stop

mkfs.ext4 -q -F -b 4096 -N 32768 -L "$VOLUME" -m 0 -d "$root" "$work/$VOLUME.img" "$VOLUME_SIZE"

# 3. The volume.
"$tessera" serve > "$work/serve.log" 2>&1 & server=$!
for _ in $(seq 100); do [ -S "$TESSERA_DATA/nbd.sock" ] && break; sleep 0.1; done
"$tessera" image import "$work/$VOLUME.img" "$VOLUME"

# 4. The guest, recorded from its first read to its power off.
"$tessera" trace record --volume "$VOLUME" "$trace" > "$work/record.log" 2>&1 & recorder=$!
for _ in $(seq 100); do grep -q '^recording' "$work/record.log" && break; sleep 0.1; done
machine=
if [ -d "$work/qemu" ]; then
    PATH="$work/qemu/usr/bin:$PATH"
    machine="-L $work/qemu/usr/share/qemu -L $work/qemu/usr/share/seabios -L $work/qemu/usr/lib/ipxe/qemu"
    export LD_LIBRARY_PATH="$work/qemu/usr/lib/x86_64-linux-gnu:$work/qemu/lib/x86_64-linux-gnu"
fi
# shellcheck disable=SC2086 # a list of options
qemu-system-x86_64 $machine -machine q35 -accel tcg,thread=multi -cpu max -smp 2 -m "$MEMORY_MIB" \
    -nodefaults -no-user-config -display none -serial "file:$work/guest.log" \
    -kernel "$work/boot/boot/vmlinuz-$KERNEL-cloud-amd64" \
    -append "console=ttyS0 quiet panic=-1 tsc=reliable root=/dev/nvme0n1 rootfstype=ext4 rootwait rw init=/sbin/init" \
    -drive "file=nbd+unix:///$VOLUME?socket=$TESSERA_DATA/nbd.sock,format=raw,if=none,id=disk,cache=none" \
    -device nvme,drive=disk,serial=demo &
qemu=$!
wait "$qemu"
qemu=
unset LD_LIBRARY_PATH
if grep -a FAILED "$work/guest.log"; then exit 1; fi

kill -INT "$recorder"; wait "$recorder" || true; recorder=
cat "$work/record.log"
"$tessera" image export "$VOLUME" "$work/after.img"
kill -TERM "$server"; wait "$server" || true; server=
e2fsck -fn "$work/after.img"
zstd -t "$trace"
