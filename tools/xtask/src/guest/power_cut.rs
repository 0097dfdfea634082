//! Power cuts of the real path: a served pool on three NVMe devices whose writes are logged.
//!
//! The guest runs `power run` (tools/examples/power) and traces its block
//! requests; `power replay` then cuts the power here, as often as asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::initramfs::{Contents, build};
use super::machine::{Disk, Machine};
use super::{Failure, Rig, output};

/// Role and size of the pool's devices, in the pool's order.
const DEVICES: [(&str, u64); 3] = [("fast", 320), ("fast", 320), ("cold", 384)];
const MEMORY_MIB: u32 = 1024;
/// Of the trace, for each core of the guest: some 900,000 requests.
const TRACE_KIB: u32 = 96 << 10;
/// Boot, start of the server, results; and how much slower a busy machine is.
const SLACK: Duration = Duration::from_secs(240);

/// Runs the guest once for each seed and replays each run.
pub fn run(rig: &Rig<'_>) -> Result<(), Failure> {
    let programs = Programs::provide(rig)?;
    for seed in &rig.options.seeds {
        let started = Instant::now();
        let recorded = record(rig, &programs, *seed)?;
        println!("seed {seed}: recorded in {:.0} s", started.elapsed().as_secs_f64());
        let started = Instant::now();
        replay(rig, &programs, *seed, &recorded)?;
        println!("seed {seed}: replayed in {:.0} s", started.elapsed().as_secs_f64());
    }
    Ok(())
}

/// What runs in the guest and here.
struct Programs {
    tessera: PathBuf,
    power: PathBuf,
}

impl Programs {
    /// Builds them, or takes the server that is named; without debug information.
    fn provide(rig: &Rig<'_>) -> Result<Programs, Failure> {
        if !crate::build_tessera() {
            return Err(Failure("the programs do not build".into()));
        }
        let built = crate::target_dir().join("ci");
        let tessera = rig.options.tessera.clone().unwrap_or_else(|| built.join("tessera"));
        let strip = |from: &Path, name: &str| {
            let to = rig.dir.join(name);
            let mut strip = Command::new("strip");
            match output(strip.arg("-o").arg(&to).arg(from)) {
                Ok(_) => Ok(to),
                // Bigger, but as good.
                Err(_) => fs::copy(from, &to).map(|_| to).map_err(Failure::at(from.display())),
            }
        };
        Ok(Programs {
            tessera: strip(&tessera, "tessera")?,
            power: strip(&built.join("examples/power"), "power")?,
        })
    }
}

/// The pool's configuration: as devices of the guest, or as images with sizes.
fn pool(path: impl Fn(usize) -> String, sizes: bool) -> String {
    let head = "memory_per_core = \"96MiB\"\nstage_budget = \"24MiB\"\n".to_owned();
    let devices = DEVICES.iter().enumerate().map(|(index, (role, mib))| {
        let size = if sizes { format!("size = \"{mib}MiB\"\n") } else { String::new() };
        format!("[[pool.devices]]\npath = \"{}\"\nrole = \"{role}\"\n{size}", path(index))
    });
    head + &devices.collect::<String>()
}

/// Runs the guest; the directory of trace and logs.
fn record(rig: &Rig<'_>, programs: &Programs, seed: u64) -> Result<PathBuf, Failure> {
    let length = Duration::from_secs(rig.options.seconds);
    let disk = |(index, (_, mib)): (usize, &(&str, u64))| Disk {
        bytes: mib << 20,
        log: Some(format!("log{index}")),
    };
    let machine = Machine {
        dir: &rig.dir.join(format!("seed{seed}")),
        memory_mib: MEMORY_MIB,
        // The kernel flushes once for each queue at a time, and the trace does not tell
        // flushes of one device apart.
        queues: 1,
        disks: DEVICES.iter().enumerate().map(disk).collect(),
        network: false,
        limit: 3 * length + SLACK,
    };
    let script = format!(
        "trace=/sys/kernel/tracing
echo counter > $trace/trace_clock
echo {TRACE_KIB} > $trace/buffer_size_kb
for event in issue complete; do
    echo 'rwbs ~ \"*W*\" || rwbs ~ \"*F*\" || rwbs ~ \"*D*\"' > $trace/events/block/block_rq_$event/filter
    echo 1 > $trace/events/block/block_rq_$event/enable
done
power run --data /data --tessera /bin/tessera --marks $trace/trace_marker --seed {seed} \\
    --seconds {} || {{ cat /data/serve.log; exit 1; }}
echo 0 > $trace/tracing_on
cat $trace/trace > /out/trace
",
        rig.options.seconds
    );
    let toml = pool(|index| format!("/dev/nvme0n{}", index + 1), false);
    let contents = Contents {
        kernel: &rig.kit.kernel,
        modules: &[],
        programs: &[&programs.tessera, &programs.power],
        packaged: None,
        files: &[("data/tessera.toml", &toml)],
        script: &script,
        seconds: (machine.limit - SLACK / 2).as_secs(),
        results: &machine.results(),
    };
    let out = machine.run(rig.kit, contents.kernel, &build(rig.kit, &contents)?)?;
    print!("{}", fs::read_to_string(out.join("printed")).unwrap_or_default());
    let (from, to) = (out.join("trace"), machine.dir.join("trace"));
    fs::rename(&from, &to).map_err(Failure::at(from.display()))?;
    let (path, toml) =
        (machine.dir.join("tessera.toml"), pool(|index| format!("disk{index}"), true));
    fs::write(&path, toml).map_err(Failure::at(path.display()))?;
    Ok(machine.dir.to_path_buf())
}

fn replay(rig: &Rig<'_>, programs: &Programs, seed: u64, recorded: &Path) -> Result<(), Failure> {
    let mut command = Command::new(&programs.power);
    command.arg("replay").arg("--recorded").arg(recorded).arg("--tessera").arg(&programs.tessera);
    command.arg("--seed").arg(seed.to_string());
    command.arg("--replays").arg(rig.options.replays.to_string());
    if crate::steps::run(command) {
        return Ok(());
    }
    Err(Failure(format!("the pool of seed {seed} does not survive its power cuts")))
}
