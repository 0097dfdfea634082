//! Tests of the configuration file.

use super::*;

const POOL: &str = "[pool]\ndevices = [{ path = \"f\", role = \"fast\", size = \"1GiB\" }]\n";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("d/tessera.toml"))
}

#[test]
fn a_pool_is_enough() {
    let config = parse(POOL).unwrap();
    assert_eq!(config.prefetch, PrefetchKind::Learned);
    assert_eq!(config.fragment_size().bytes(), 1 << 20);
    assert_eq!(config.pool.devices[0].size, Some(ByteSize::new(1 << 30)));
    assert_eq!(config.nbd, [NbdListener::Unix("nbd.sock".into())]);
}

#[test]
fn every_key_is_read() {
    let text = r#"
cores = 2
memory_per_core = "64MiB"
prefetch = "readahead"
prefetch_depth = 8
stage_threshold = 0.25
stage_budget = "32MiB"
sequence_length = 16
fragment_size = "256KiB"
train_cpu = 0.1
forecaster = "holt-winters"
prediction_horizon = "1h"
stop_timeout = 5
nbd = ["unix:x.sock", "tcp:127.0.0.1:10809"]

[tier_policy]
spill_watermark = 0.5
idle_seconds = 60
forecast = false

[[pool.devices]]
path = "fast.img"
role = "fast"
size = 1073741824

[[pool.devices]]
path = "/dev/sdb"
role = "cold"
emulate = "hdd"
"#;
    let config = parse(text).unwrap();
    assert_eq!((config.cores, config.prefetch_depth, config.stop_timeout), (Some(2), 8, 5));
    assert_eq!((config.tier_policy.idle_seconds, config.tier_policy.forecast), (60, false));
    assert_eq!(config.forecaster, ForecasterKind::HoltWinters);
    assert_eq!(config.prediction_horizon, Horizon::ONE_HOUR);
    assert_eq!(config.pool.devices[1].emulate, Some(Emulate::Hdd));
    assert_eq!(parse(&config.to_toml()).unwrap(), config);
}

#[test]
fn errors_name_file_line_and_key() {
    for (text, want) in [
        (
            format!("cores = 2\nfragmnt_size = 1\n{POOL}"),
            "d/tessera.toml:2: `fragmnt_size`: unknown field",
        ),
        (
            format!("\n\nstage_budget = \"8 bananas\"\n{POOL}"),
            ":3: `stage_budget`: expected a size",
        ),
        (format!("cores = 0\n{POOL}"), ":1: `cores`: expected 1 to 64"),
        (
            format!("cores = 1\nfragment_size = \"3MiB\"\n{POOL}"),
            ":2: `fragment_size`: expected a power",
        ),
        (format!("stage_threshold = 1.5\n{POOL}"), ":1: `stage_threshold`: expected a probability"),
        (
            format!("nbd = [\"tcp:0.0.0.0:10809\"]\n{POOL}"),
            ":1: `nbd`: tcp:0.0.0.0:10809 is reachable",
        ),
        (
            format!("prediction_horizon = \"5 weeks\"\n{POOL}"),
            ":1: `prediction_horizon`: expected a horizon from 10s to 24h",
        ),
        (format!("forecaster = \"sarima\"\n{POOL}"), ":1: `forecaster`: unknown variant"),
        (format!("nbd = [\"udp:1\"]\n{POOL}"), ":1: `nbd`: expected unix:"),
        (
            format!("prefetch = \"lstm\"\n{POOL}"),
            ":1: `prefetch`: unknown variant `lstm`, expected one of `none`, `readahead`, `learned`",
        ),
        ("cores = 1\n".to_owned(), "missing field `pool`"),
        ("cores = \n".to_owned(), ":1: `cores`"),
        ("[pool]\ndevices = []\n".to_owned(), ":1: `pool`: a pool needs a device"),
        (
            "[[pool.devices]]\npath = \"f\"\nrole = \"warm\"\n".to_owned(),
            ":3: `role`: unknown variant",
        ),
        (POOL.replace("1GiB", "1MiB"), "`pool`: f is too small"),
    ] {
        let message = parse(&text).expect_err(&text).to_string();
        assert!(message.contains(want), "{message}\nshould contain {want}");
    }
}

#[test]
fn no_file_is_no_error_and_no_config() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Config::load(dir.path()).unwrap().is_none());
    std::fs::write(dir.path().join(CONFIG_NAME), POOL).unwrap();
    assert_eq!(Config::load(dir.path()).unwrap(), Some(parse(POOL).unwrap()));
    std::fs::write(dir.path().join(CONFIG_NAME), b"\xff").unwrap();
    assert!(matches!(Config::load(dir.path()), Err(ConfigError::Read { .. })));
}

#[test]
fn the_embedded_default_takes_a_tenth() {
    let free = 100 << 30;
    let config = Config::embedded(Path::new("d"), free).unwrap();
    let sizes: Vec<u64> = config.pool.devices.iter().map(|d| d.size.unwrap().bytes()).collect();
    assert_eq!(sizes[1], 3 * sizes[0]);
    assert!(sizes[0] + sizes[1] <= free / 10);
    assert!(sizes[0] + sizes[1] > free / 10 - (4 << 20));
    assert_eq!(parse(&config.to_toml()).unwrap(), config);
    let error = Config::embedded(Path::new("d"), 10 << 30).unwrap_err();
    assert!(error.to_string().contains("it needs 512MiB"), "{error}");
}
