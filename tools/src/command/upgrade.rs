//! `tessera upgrade`: brings a stopped data directory to this program's format version.

use engine::pool::upgrade::Upgrade;
use engine::server::upgrade::{UpgradeError, upgrade_stopped};

use super::{Context, when_unlocked};
use crate::error::CommandError;

/// Exits 0 if the pool is of this program's version now.
pub fn run(context: &Context) -> Result<(), CommandError> {
    let done =
        when_unlocked(context, UpgradeError::is_in_use, || upgrade_stopped(&context.data_dir))?;
    context.form.print(&done, text);
    Ok(())
}

fn text(done: &Upgrade) -> String {
    let version = match done {
        Upgrade { from, to, .. } if from == to => format!("version {to} already: nothing to do"),
        Upgrade { from, to, .. } => format!("version {from} became version {to}"),
    };
    let named = |name: &str, bits: u64| match bits {
        0 => String::new(),
        bits => format!(", {name} features {bits:#x}"),
    };
    version + &named("compatible", done.compat) + &named("read-only-compatible", done.ro_compat)
}
