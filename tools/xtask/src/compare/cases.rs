//! What is compared, with whom, and the goal of each comparison.

/// What both contenders of a case ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Share of reads in per cent; the rest are writes.
    pub read_percent: u8,
    /// In random order, else sequential.
    pub random: bool,
    /// KiB of a request.
    pub block_kib: u32,
    /// Requests under way.
    pub depth: u32,
    /// Writes before each flush, 0 for never.
    pub fsync: u32,
    /// Connections, each with its requests.
    pub connections: u32,
}

/// Where the two meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// The engine in process and fio's io_uring on one preallocated file, `O_DIRECT`.
    File {
        /// After everything was overwritten in random order.
        scattered: bool,
    },
    /// The engine on memory and SPDK's malloc device.
    Memory {
        /// The engine copies the bytes once more, to a client's memory.
        copy: bool,
    },
    /// Two NBD servers on files of the same size, the same fio.
    NbdFile,
    /// Two NBD servers on files in `/dev/shm`, the same fio.
    NbdMemory,
    /// Two NVMe/TCP targets on memory, SPDK's host.
    NvmfMemory,
    /// Two NVMe/TCP targets that have nothing to read, our own host, which costs less.
    NvmfNull,
}

/// One comparison.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// Where.
    pub ground: Ground,
    /// What.
    pub load: Load,
    /// Ours divided by the peer's shall be at least this.
    pub goal: f64,
}

impl Case {
    /// Who the peer is.
    pub fn peer_name(&self) -> &'static str {
        match self.ground {
            Ground::File { .. } => "fio io_uring",
            Ground::Memory { .. } => "SPDK bdevperf malloc",
            Ground::NbdFile | Ground::NbdMemory => "qemu-storage-daemon",
            Ground::NvmfMemory => "SPDK nvmf_tgt malloc",
            Ground::NvmfNull => "SPDK nvmf_tgt null",
        }
    }
}

const fn random(read: bool, depth: u32, fsync: u32) -> Load {
    let read_percent = if read { 100 } else { 0 };
    Load { read_percent, random: true, block_kib: 4, depth, fsync, connections: 1 }
}

const fn mixed(depth: u32) -> Load {
    Load { read_percent: 70, ..random(true, depth, 0) }
}

const fn sequential(read: bool) -> Load {
    Load { random: false, block_kib: 128, ..random(read, 32, 0) }
}

const fn on(connections: u32, load: Load) -> Load {
    Load { connections, ..load }
}

const fn case(name: &'static str, ground: Ground, load: Load, goal: f64) -> Case {
    Case { name, ground, load, goal }
}

const FILE: Ground = Ground::File { scattered: false };
const SCATTERED: Ground = Ground::File { scattered: true };
const COPY: Ground = Ground::Memory { copy: true };
const NO_COPY: Ground = Ground::Memory { copy: false };
const NVMF: Ground = Ground::NvmfMemory;
const NULL: Ground = Ground::NvmfNull;

/// All comparisons.
pub const CASES: [Case; 43] = [
    case("memory-randread-qd1", COPY, random(true, 1, 0), 1.0),
    case("memory-randread-qd32", COPY, random(true, 32, 0), 1.0),
    case("memory-randread-qd32-in-place", NO_COPY, random(true, 32, 0), 1.0),
    case("file-randread-qd1", FILE, random(true, 1, 0), 0.95),
    case("file-randread-qd32", FILE, random(true, 32, 0), 0.95),
    case("file-randwrite-qd1", FILE, random(false, 1, 0), 0.95),
    case("file-randwrite-qd1-fsync32", FILE, random(false, 1, 32), 0.95),
    case("file-randwrite-qd1-fsync1", FILE, random(false, 1, 1), 0.95),
    case("file-randwrite-qd32", FILE, random(false, 32, 0), 0.95),
    case("file-randwrite-qd32-fsync32", FILE, random(false, 32, 32), 0.95),
    case("file-randwrite-qd32-fsync1", FILE, random(false, 32, 1), 0.95),
    case("file-seqread-128k", FILE, sequential(true), 0.95),
    case("file-seqwrite-128k", FILE, sequential(false), 0.95),
    case("file-seqread-128k-scattered", SCATTERED, sequential(true), 0.85),
    case("file-randread-qd32-scattered", SCATTERED, random(true, 32, 0), 0.85),
    case("nbd-file-randread-qd1", Ground::NbdFile, random(true, 1, 0), 1.0),
    case("nbd-file-randread-qd32", Ground::NbdFile, random(true, 32, 0), 1.0),
    case("nbd-file-randwrite-qd1", Ground::NbdFile, random(false, 1, 0), 1.0),
    case("nbd-file-randwrite-qd32", Ground::NbdFile, random(false, 32, 0), 1.0),
    case("nbd-memory-randread-qd1", Ground::NbdMemory, random(true, 1, 0), 1.3),
    case("nbd-memory-randread-qd32", Ground::NbdMemory, random(true, 32, 0), 1.3),
    case("nbd-memory-randwrite-qd1", Ground::NbdMemory, random(false, 1, 0), 1.3),
    case("nbd-memory-randwrite-qd32", Ground::NbdMemory, random(false, 32, 0), 1.3),
    case("nvmf-randread-qd1", NVMF, random(true, 1, 0), 1.1),
    case("nvmf-randread-qd32", NVMF, random(true, 32, 0), 1.35),
    case("nvmf-randread-qd128", NVMF, random(true, 128, 0), 1.1),
    case("nvmf-randwrite-qd1", NVMF, random(false, 1, 0), 1.1),
    case("nvmf-randwrite-qd32", NVMF, random(false, 32, 0), 1.35),
    case("nvmf-randwrite-qd128", NVMF, random(false, 128, 0), 1.35),
    case("nvmf-mixed-qd1", NVMF, mixed(1), 1.1),
    case("nvmf-mixed-qd32", NVMF, mixed(32), 1.35),
    case("nvmf-mixed-qd128", NVMF, mixed(128), 1.1),
    case("nvmf-seqread-128k", NVMF, sequential(true), 1.0),
    case("nvmf-seqwrite-128k", NVMF, sequential(false), 1.0),
    case("nvmf-randread-qd32-4-connections", NVMF, on(4, random(true, 32, 0)), 1.35),
    case("nvmf-randwrite-qd32-4-connections", NVMF, on(4, random(false, 32, 0)), 1.35),
    case("nvmf-randread-qd32-8-connections", NVMF, on(8, random(true, 32, 0)), 1.35),
    case("nvmf-randwrite-qd32-8-connections", NVMF, on(8, random(false, 32, 0)), 1.35),
    case("nvmf-mixed-qd32-4-connections", NVMF, on(4, mixed(32)), 1.35),
    case("nvmf-null-randread-qd1", NULL, random(true, 1, 0), 1.0),
    case("nvmf-null-randread-qd32", NULL, random(true, 32, 0), 1.5),
    case("nvmf-null-randread-qd128", NULL, random(true, 128, 0), 1.5),
    case("nvmf-null-randread-qd32-4-connections", NULL, on(4, random(true, 32, 0)), 1.5),
];

/// The cases whose names contain one of `wanted`, all if there is none; an error names
/// what fits no case.
pub fn chosen(wanted: &[String]) -> Result<Vec<Case>, String> {
    let fits = |case: &Case, want: &String| case.name.contains(want.as_str());
    if let Some(unknown) = wanted.iter().find(|want| !CASES.iter().any(|case| fits(case, want))) {
        let names: Vec<_> = CASES.iter().map(|case| case.name).collect();
        return Err(format!("no comparison {unknown}; there are {}", names.join(", ")));
    }
    let all = CASES.iter().copied();
    Ok(all.filter(|case| wanted.is_empty() || wanted.iter().any(|w| fits(case, w))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_choose() {
        let mut names: Vec<_> = CASES.iter().map(|case| case.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CASES.len());
        assert_eq!(chosen(&[]).unwrap().len(), CASES.len());
        let of_memory = chosen(&["memory-randread-qd32-in".to_owned()]).unwrap();
        assert_eq!(of_memory[0].peer_name(), "SPDK bdevperf malloc");
        assert!(chosen(&["nonsense".to_owned()]).unwrap_err().contains("file-seqread-128k"));
    }
}
