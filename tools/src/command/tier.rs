//! `tessera tier spill`.

use super::{Context, volume};
use crate::admin::AdminRequest;
use crate::error::CommandError;
use crate::progress::byte_bar;

/// What to do with the tiers.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Move all of a volume to the cold tier now, and drop its copies in memory and on the
    /// fast tier
    Spill {
        /// The volume
        volume: String,
    },
}

/// Runs the command.
pub fn run(action: &Action, context: &Context) -> Result<(), CommandError> {
    let Action::Spill { volume: name } = action;
    spill(context, name)?;
    let show = AdminRequest::VolumeShow { name: name.clone() };
    let report = super::volume(&mut context.admin()?, &show)?;
    context.form.print(&report, volume::details);
    Ok(())
}

/// Moves a volume to the cold tier, with a progress bar.
pub fn spill(context: &Context, name: &str) -> Result<(), CommandError> {
    let bar = byte_bar("spill", 0);
    let request = AdminRequest::VolumeSpill { name: name.to_owned() };
    context.admin()?.call_with_progress(&request, |step| {
        bar.set_length(step.total);
        bar.set_position(step.done);
    })?;
    bar.finish_and_clear();
    Ok(())
}
