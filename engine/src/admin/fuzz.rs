//! Fuzz targets of the configuration and the admin socket: see [`crate::fuzz`].

use std::path::Path;

use super::config::{Config, ConfigError};
use super::line::{Line, read_line};
use super::protocol::{AdminRequest, Reply};

/// Longest line that the target takes whole: short, so that inputs reach the limit.
const LINE_BYTES: usize = 512;

/// A configuration: one that is accepted stays the same when it is written and read.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let path = Path::new("tessera.toml");
    match Config::parse(text, path) {
        Ok(config) => {
            let again = Config::parse(&config.to_toml(), path).expect("our own text");
            assert_eq!(again, config);
        }
        Err(ConfigError::Line { line, .. }) => {
            assert!((1..=text.lines().count() + 1).contains(&line), "line {line} exists");
        }
        Err(other) => panic!("parsing does nothing but parse: {other}"),
    }
}

/// Lines of either side of the admin socket.
pub fn admin(bytes: &[u8]) {
    let mut input = bytes;
    let mut seen = 0;
    while let Line::Text(line) = read_line(&mut input, LINE_BYTES).expect("memory does not fail") {
        assert!(line.len() < LINE_BYTES && !line.contains(&b'\n'));
        seen += line.len() + 1;
        if let Ok(request) = serde_json::from_slice::<AdminRequest>(&line) {
            let again = serde_json::to_vec(&request).expect("requests have string keys only");
            assert_eq!(serde_json::from_slice::<AdminRequest>(&again).ok(), Some(request));
        }
        if let Ok(reply) = serde_json::from_slice::<Reply>(&line) {
            let again = serde_json::to_vec(&reply).expect("replies have string keys only");
            assert_eq!(serde_json::from_slice::<Reply>(&again).ok(), Some(reply));
        }
    }
    assert!(seen <= bytes.len());
}
