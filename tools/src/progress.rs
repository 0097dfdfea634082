//! Progress bars on stderr; invisible where stderr is no terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar over bytes.
pub fn byte_bar(what: &'static str, total_bytes: u64) -> ProgressBar {
    bar(what, total_bytes, "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
}

/// A bar over things.
pub fn count_bar(what: impl Into<String>, total: u64) -> ProgressBar {
    bar(what, total, "{msg} {wide_bar} {pos}/{len} {eta}")
}

fn bar(what: impl Into<String>, total: u64, template: &str) -> ProgressBar {
    // indicatif hides this target by itself unless stderr is a terminal.
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(5));
    bar.set_style(ProgressStyle::with_template(template).expect("a constant template"));
    bar.with_message(what.into())
}
