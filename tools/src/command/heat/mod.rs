//! `tessera heat`: how hot the parts of a volume are, and are expected to be.

mod curve;
mod svg;
mod view;

use std::fs;
use std::path::PathBuf;

use serde::Serialize;

use super::Context;
use crate::admin::heat::{ForecasterKind, HeatReport, Horizon};
use crate::admin::{AdminClient, AdminRequest, AdminResponse};
use crate::error::CommandError;

/// Options of `heat`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The volume to show
    #[arg(required_unless_present_any = ["forecaster", "horizon"])]
    volume: Option<String>,
    /// Draw heat over time and forecast to this file, which is overwritten
    #[arg(long, value_name = "FILE", requires = "volume")]
    svg: Option<PathBuf>,
    /// Let another forecaster look ahead until the server stops: auto, lstm, arima, prophet,
    /// holt-winters, seasonal-naive or ewma
    #[arg(long, value_name = "NAME")]
    forecaster: Option<ForecasterKind>,
    /// Look so far ahead until the server stops: 10s to 24h, such as 5min or 1h
    #[arg(long, value_name = "TIME")]
    horizon: Option<Horizon>,
}

#[derive(Serialize)]
struct Set {
    forecaster: Option<ForecasterKind>,
    horizon: Option<Horizon>,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<(), CommandError> {
    let mut admin = context.admin()?;
    let Args { volume, svg, forecaster, horizon } = args;
    if forecaster.is_some() || horizon.is_some() {
        let (forecaster, horizon) = (*forecaster, *horizon);
        admin.call(&AdminRequest::HeatSet { forecaster, horizon })?;
        if volume.is_none() {
            context.form.print(&Set { forecaster, horizon }, |_| "set until the server stops");
        }
    }
    let Some(name) = volume else { return Ok(()) };
    let report = show(&mut admin, name)?;
    if let Some(path) = svg {
        let file = |source| CommandError::File { path: path.clone(), source };
        fs::write(path, svg::draw(&report)).map_err(file)?;
    }
    context.form.print(&*report, view::text);
    Ok(())
}

fn show(admin: &mut AdminClient, name: &str) -> Result<Box<HeatReport>, CommandError> {
    match admin.call(&AdminRequest::HeatShow { name: name.to_owned(), map: true })? {
        AdminResponse::Heat(report) => Ok(report),
        _ => Err(CommandError::WrongAnswer),
    }
}
