//! A server under load takes no more memory than ARCHITECTURE.md says.

mod rig;

use std::fs;

use rig::Rig;

const MIB: u64 = 1 << 20;
const SLICES: u64 = 65;
const CONFIG: &str = r#"
memory_per_core = "32MiB"
map_budget = "1MiB"
stage_budget = "8MiB"

[[pool.devices]]
path = "fast.img"
role = "fast"
size = "512MiB"

[[pool.devices]]
path = "cold.img"
role = "cold"
size = "1GiB"
"#;

/// The number in a row of ARCHITECTURE.md's table of memory, in the unit of that row.
fn documented(what: &str) -> u64 {
    let document = fs::read_to_string(rig::workspace().join("ARCHITECTURE.md")).unwrap();
    let row = document.lines().find(|line| line.starts_with(&format!("| {what} |")));
    let cell = row.and_then(|row| row.split('|').nth(2)).expect("a row of the table");
    let digits: String = cell.trim().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process");
    let kib = line.trim().strip_suffix(" kB").expect("in KiB");
    kib.trim().parse::<u64>().unwrap() << 10
}

#[test]
fn a_loaded_server_stays_within_the_formula() {
    for cores in 1..=2 {
        let mut rig = Rig::with_config(CONFIG);
        rig.start(&["--cores", &cores.to_string()]);
        rig.ok(&["volume", "create", "v", "--size", "128MiB"]);
        let uri = rig.uri("v");
        rig.ok(&["bench", "nbd", &uri, "--read", "0", "--seconds", "1", "--warm-up", "0"]);
        let resident = resident_bytes(rig.pid());
        let of_core = (documented("core") + 32 + 1) * MIB;
        let of_logs = SLICES * (documented("slice") << 10);
        let fragments = 128 * documented("fragment");
        let limit = documented("process") * MIB + cores * of_core + of_logs + fragments;
        println!("{cores} cores: {} of {} MiB", resident / MIB, limit / MIB);
        assert!(resident <= limit, "{cores} cores: {resident} bytes, {limit} by the formula");
    }
}
