# Functions that every NVMe/TCP scenario has; run by busybox sh with -e.

# Asks the machine outside (served.rs) and prints what it answers.
host() {
    echo "$*" | nc "$HOST" "$DOOR" > /tmp/answer
    sed '$d' /tmp/answer
    [ "$(tail -n 1 /tmp/answer)" = ok ]
}

# Ends the scenario.
fail() {
    echo "FAILED: $*" >&2
    ls -l /sys/block /sys/class/nvme /dev/nvme* >&2
    exit 1
}

# refused COMMAND…: the command must fail.
refused() {
    if "$@"; then fail "passes: $*"; fi
}

# said TEXT: what the command before left in /tmp/said has this in it.
said() {
    grep "$1" /tmp/said || fail "it said: $(cat /tmp/said)"
}

# within SECONDS COMMAND…: the command must succeed in that time.
within() {
    set +x
    limit=$(($(cut -d. -f1 /proc/uptime) + $1))
    shift
    until "$@"; do
        [ "$(cut -d. -f1 /proc/uptime)" -lt "$limit" ] || fail "not in time: $*"
        sleep 0.2
    done
    set -x
}

# connect NQN OPTIONS…: as nvme connect has them. On a busy machine emulated hosts are late with
# their keep-alives: unless told otherwise these are patient.
connect() {
    nvme connect -t tcp -a "$HOST" -s "$PORT" --keep-alive-tmo=30 -n "$@"
}

# The real ones: the shell prefers its own of these names.
blkdiscard() {
    /bin/blkdiscard "$@"
}

fstrim() {
    /bin/fstrim "$@"
}

# The name of the controller of a subsystem: nvme1.
controller() {
    for path in /sys/class/nvme/nvme*; do
        if is "$path/subsysnqn" "$1"; then
            basename "$path"
            return
        fi
    done
    return 1
}

# disk NQN NSID: the name of a namespace's disk, once it is there: nvme1n1.
disk() {
    within 30 find_disk "$1" "$2" > /dev/null
    find_disk "$1" "$2"
}

find_disk() {
    for path in /sys/block/nvme*; do
        if is "$path/hidden" 0 && is "$path/nsid" "$2" && is "$path/device/subsysnqn" "$1" &&
            [ -b "/dev/${path##*/}" ]; then
            basename "$path"
            return
        fi
    done
    return 1
}

# True if the subsystem has no such namespace, or nothing is connected to it.
no_disk() {
    ! find_disk "$1" "$2" > /dev/null
}

# is FILE TEXT: a file of sysfs has this content.
is() {
    [ "$(cat "$1" 2> /dev/null)" = "$2" ]
}

is_not() {
    ! is "$1" "$2"
}

# verified DISK OPTIONS…: fio writes, reads and compares; with crc32c, at depth 16. Never to a
# file in the place of a disk that has gone.
verified() {
    on=$1
    shift
    said=$(fio --name=verified --filename="/dev/$on" --direct=1 --ioengine=libaio --iodepth=16 \
        --allow_file_create=0 --verify=crc32c --verify_fatal=1 "$@" 2>&1) || fail "$said"
}

# load DISK OPTIONS…: random writes, read back and compared, pass by pass until /tmp/stop exists.
load() {
    pass=0
    until [ -e /tmp/stop ]; do
        pass=$((pass + 1))
        verified "$@" --rw=randwrite --do_verify=1 --randseed=$pass
        echo $pass > "/tmp/pass$(echo "$*" | tr -d ' /')"
    done
}

# again DISK OPTIONS…: compares what the last pass of such a load wrote.
again() {
    pass=$(cat "/tmp/pass$(echo "$*" | tr -d ' /')")
    verified "$@" --rw=randwrite --verify_only --randseed="$pass"
}

# True if the server has an admin queue and two I/O queues connected, and no more.
three_connections() {
    [ "$(host tessera --json target nvmf connections | grep -c '"qid"')" = 3 ]
}

# What ran last is what failed.
set -x
# The host of 6.1 sends in the context of the program that asks: when the server has closed the
# connection that program gets a SIGPIPE, which kills fio.
trap '' PIPE
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via "$HOST"
mkdir -p /mnt
