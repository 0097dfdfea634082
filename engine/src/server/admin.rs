//! Carrying out admin requests. One thread per connection; changes are serialised by the state's lock.

use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

use super::command::{Command, CoreStats, Outcome};
use super::control::{Server, State};
use super::heat::{HeatAsk, HeatChange, HeatThread};
use super::nvmf;
use super::open::{random_uuid, uuid_text};
use super::prediction;
use super::recorder::Recorder;
use crate::admin::heat::{ForecasterKind, HeatReport, Horizon};
use crate::admin::protocol::{
    AdminError, AdminRequest, AdminResponse, ErrorCode, PrefetchKind, Progress,
};
use crate::admin::report::{
    CoreReport, DeviceReport, StatsReport, StatusReport, TierUsage, VolumeReport,
};
use crate::device::Backing;
use crate::format::superblock::Role;
use crate::request::Failure;
use crate::table::Counters;
use crate::units::{FragmentSize, VolumeId};
use crate::volume::catalog::{CatalogError, DELETING, NewVolume, READ_ONLY, TRIMMING};
use crate::volume::placement::core_of;
use crate::volume::trim::{edge_parts, first_segment_behind};

type Answer = Result<AdminResponse, AdminError>;

/// Serves one admin connection to its end.
pub fn serve(server: &Server, stream: UnixStream) {
    let handler = |request, report: &mut dyn FnMut(Progress)| handle(server, request, report);
    if let Err(error) = crate::admin::server::serve_with_progress(stream, handler) {
        tracing::debug!(%error, "an admin connection ended");
    }
}

/// Finishes deletions and shrinks that the last process had begun.
pub fn finish_drops(server: &Server) {
    let mut state = server.state();
    let begun: Vec<_> = state
        .catalog
        .iter()
        .filter(|(_, volume)| volume.flags & (DELETING | TRIMMING) != 0)
        .map(|(id, _)| id)
        .collect();
    for id in begun {
        if let Err(error) = drop_beyond(server, &mut state, id) {
            tracing::error!(volume = id.get(), %error, "space of a volume is not given back yet");
        }
    }
}

/// Carries out one request.
pub fn handle(server: &Server, request: AdminRequest, report: &mut dyn FnMut(Progress)) -> Answer {
    match request {
        AdminRequest::Status => Ok(AdminResponse::Status(status(server))),
        AdminRequest::VolumeCreate { name, size_bytes, fragment_size, block_bytes, read_only } => {
            let block_bytes = block_bytes.unwrap_or(512);
            create(server, name, size_bytes, fragment_size, block_bytes, read_only)
        }
        AdminRequest::VolumeList => {
            let ids: Vec<_> =
                server.state().catalog.serving().list().iter().map(|v| v.view.id).collect();
            let stats = server.ask_all(Command::Stats);
            let volumes = ids.into_iter().map(|id| volume_report(server, id, &stats)).collect();
            Ok(AdminResponse::Volumes { volumes })
        }
        AdminRequest::VolumeShow { name } => {
            let id = server.state().catalog.find(&name).map_err(catalog_error)?;
            show(server, id)
        }
        AdminRequest::VolumeResize { name, size_bytes, force } => {
            resize(server, &name, size_bytes, force)
        }
        AdminRequest::VolumeDelete { name } => delete(server, &name),
        AdminRequest::VolumeSpill { name } => spill(server, &name, report),
        AdminRequest::DeviceList => Ok(AdminResponse::Devices { devices: devices(server) }),
        AdminRequest::Stats { reset } => Ok(AdminResponse::Stats(stats(server, reset))),
        AdminRequest::SetPrefetch { kind, depth, threshold, share, budget_bytes } => {
            set_prefetch(server, kind, depth, threshold, share, budget_bytes)
        }
        AdminRequest::PredictorStatus => prediction::status(server),
        AdminRequest::PredictorExplain { volume, last } => {
            prediction::explain(server, &volume, last)
        }
        AdminRequest::PredictorTrain { vm, volume, path } => {
            prediction::study(server, &vm, &volume, &path, report)
        }
        AdminRequest::HeatShow { name, map } => heat_show(server, &name, map),
        AdminRequest::HeatSet { forecaster, horizon } => heat_set(server, forecaster, horizon),
        AdminRequest::TraceStart { path, volume } => trace_start(server, &path, volume.as_deref()),
        AdminRequest::TraceStop => trace_stop(server),
        AdminRequest::Flush => {
            server.do_all(Command::Flush).map_err(|failure| failed("flush", failure))?;
            Ok(AdminResponse::Done)
        }
        AdminRequest::Stop => {
            server.request_stop();
            Ok(AdminResponse::Done)
        }
        other => match nvmf::handle(server, other) {
            Ok(answer) => answer,
            Err(other) => unreachable!("every request is carried out: {other:?}"),
        },
    }
}

fn failed(what: &str, failure: Failure) -> AdminError {
    let code = match failure {
        Failure::NoSpace => ErrorCode::NoSpace,
        Failure::Stopping => ErrorCode::Stopping,
        _ => ErrorCode::Io,
    };
    AdminError::new(code, format!("{what}: {failure}"))
}

pub(super) fn catalog_error(error: CatalogError) -> AdminError {
    let code = match &error {
        CatalogError::Exists(_) => ErrorCode::VolumeExists,
        CatalogError::NotFound(_) => ErrorCode::VolumeNotFound,
        CatalogError::Shrink { .. } => ErrorCode::ShrinkNeedsForce,
        CatalogError::Full => ErrorCode::NoSpace,
        CatalogError::Io(_) => ErrorCode::Io,
        CatalogError::Busy(_) => ErrorCode::VolumeInUse,
        CatalogError::Name(_) | CatalogError::Size { .. } | CatalogError::BlockSize(_) => {
            ErrorCode::BadRequest
        }
    };
    AdminError::new(code, error.to_string())
}

/// Tells all cores of the volumes as they are now; returns when nobody works by the old list.
fn publish(server: &Server, state: &State) -> Outcome {
    let volumes = state.catalog.serving();
    let outcome = server.do_all(|done| Command::Volumes(volumes.clone(), done));
    nvmf::set_volumes(server, volumes);
    outcome
}

fn create(
    server: &Server,
    name: String,
    size_bytes: u64,
    fragment_size: Option<u64>,
    block_bytes: u32,
    read_only: bool,
) -> Answer {
    let bytes = fragment_size.unwrap_or(server.config.fragment_size.bytes());
    let fragment = FragmentSize::from_bytes(bytes).ok_or_else(|| {
        let message = format!("fragment size {bytes}: a power of two from 64 KiB to 16 MiB");
        AdminError::new(ErrorCode::BadRequest, message)
    })?;
    let new = NewVolume { name, size_bytes, fragment, block_bytes, read_only };
    let id = {
        let mut state = server.state();
        let State { catalog, io, .. } = &mut *state;
        let id =
            catalog.create(io, &server.pool.meta, &new, random_uuid()).map_err(catalog_error)?;
        publish(server, &state).map_err(|failure| failed("publishing the volume", failure))?;
        id
    };
    show(server, id)
}

fn resize(server: &Server, name: &str, size_bytes: u64, force: bool) -> Answer {
    let id = {
        let mut state = server.state();
        let id = state.catalog.find(name).map_err(catalog_error)?;
        if state.catalog.get(id).is_some_and(|volume| volume.flags & TRIMMING != 0) {
            // An earlier shrink did not end, for want of space or by an error: try again.
            drop_beyond(server, &mut state, id)?;
        }
        let State { catalog, io, .. } = &mut *state;
        let shrinks =
            catalog.resize(io, &server.pool.meta, id, size_bytes, force).map_err(catalog_error)?;
        publish(server, &state).map_err(|failure| failed("publishing the size", failure))?;
        if shrinks {
            drop_beyond(server, &mut state, id)?;
        }
        id
    };
    show(server, id)
}

fn delete(server: &Server, name: &str) -> Answer {
    let mut state = server.state();
    let id = state.catalog.find(name).map_err(catalog_error)?;
    let uuid = state.catalog.get(id).expect("just found").uuid;
    if let Some(nqn) = nvmf::exporting(server, uuid).first() {
        let message = format!("volume {name:?} is exported by {nqn}: remove it there first");
        return Err(AdminError::new(ErrorCode::VolumeInUse, message));
    }
    let clients = clients_of(id, &server.ask_all(Command::Stats));
    if clients > 0 {
        let message = format!("volume {name:?} is in use by {clients} connections");
        return Err(AdminError::new(ErrorCode::VolumeInUse, message));
    }
    let State { catalog, io, .. } = &mut *state;
    catalog
        .begin_delete(io, &server.pool.meta, id)
        .map_err(|error| AdminError::new(ErrorCode::Io, error.to_string()))?;
    publish(server, &state).map_err(|failure| failed("publishing the deletion", failure))?;
    drop_beyond(server, &mut state, id)?;
    Ok(AdminResponse::Done)
}

/// Drops what lies beyond a volume's end (all of it if it is being deleted) and records that.
fn drop_beyond(server: &Server, state: &mut State, id: VolumeId) -> Result<(), AdminError> {
    let volume = state.catalog.get(id).expect("a volume of the catalog").clone();
    let end = if volume.flags & DELETING != 0 { 0 } else { volume.size_bytes };
    let dropping = |failure| failed("giving space back", failure);
    for (slice, part) in edge_parts(id, volume.fragment, end, 0) {
        let (done, ended) = channel();
        server.send(core_of(slice, server.cores()), Command::Part(slice, part, done));
        ended.recv().map_err(|_| dropping(Failure::Stopping))?.map_err(dropping)?;
    }
    let segment = first_segment_behind(end);
    server.do_all(|done| Command::DropRange(id, segment, done)).map_err(dropping)?;
    let State { catalog, io, .. } = state;
    catalog
        .end_drop(io, &server.pool.meta, id)
        .map_err(|error| AdminError::new(ErrorCode::Io, error.to_string()))
}

fn spill(server: &Server, name: &str, report: &mut dyn FnMut(Progress)) -> Answer {
    let id = server.state().catalog.find(name).map_err(catalog_error)?;
    let left = |stats: &[CoreStats]| {
        let of = |core: &CoreStats| core.volumes.iter().find(|(v, ..)| *v == id).map_or(0, |v| v.2);
        stats.iter().map(of).sum::<u64>()
    };
    let total = left(&server.ask_all(Command::Stats));
    let waiting: Vec<_> = (0..server.cores())
        .map(|core| {
            let (done, ended) = channel();
            server.send(crate::units::CoreId::new(core), Command::Cool(id, done));
            ended
        })
        .collect();
    for ended in waiting {
        loop {
            match ended.recv_timeout(std::time::Duration::from_millis(200)) {
                Ok(outcome) => break outcome.map_err(|failure| failed("spilling", failure))?,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                    let done = total.saturating_sub(left(&server.ask_all(Command::Stats)));
                    report(Progress { what: "bytes spilled".into(), done, total });
                }
                Err(_) => return Err(failed("spilling", Failure::Stopping)),
            }
        }
    }
    Ok(AdminResponse::Done)
}

fn show(server: &Server, id: VolumeId) -> Answer {
    let stats = server.ask_all(Command::Stats);
    Ok(AdminResponse::Volume(volume_report(server, id, &stats)))
}

fn volume_report(server: &Server, id: VolumeId, stats: &[CoreStats]) -> VolumeReport {
    let state = server.state();
    let Some(volume) = state.catalog.get(id) else { return VolumeReport::default() };
    let mut report = VolumeReport {
        id: id.get(),
        name: volume.name.clone(),
        uuid: uuid_text(&volume.uuid),
        size_bytes: volume.size_bytes,
        block_bytes: 1 << volume.block_shift,
        fragment_bytes: volume.fragment.bytes(),
        read_only: volume.flags & READ_ONLY != 0,
        ..VolumeReport::default()
    };
    for (_, _, fast, cold) in stats.iter().flat_map(|core| &core.volumes).filter(|v| v.0 == id) {
        report.fast_bytes += fast;
        report.cold_bytes += cold;
    }
    report.connections = clients_of(id, stats);
    report
}

fn count(things: usize) -> u32 {
    u32::try_from(things).unwrap_or(u32::MAX)
}

fn clients_of(id: VolumeId, stats: &[CoreStats]) -> u32 {
    let all = stats.iter().flat_map(|core| &core.connections);
    count(all.filter(|volume| **volume == Some(id)).count())
}

fn tier(server: &Server, role: Role, stats: &[CoreStats]) -> TierUsage {
    let mut usage = TierUsage::default();
    for (at, superblock) in server.pool.superblocks.iter().enumerate() {
        if superblock.role == role {
            usage.total_bytes += u64::from(superblock.chunks) * superblock.chunk_bytes;
            usage.used_bytes += stats.iter().map(|core| core.devices[at].used_bytes).sum::<u64>();
        }
    }
    usage
}

fn status(server: &Server) -> StatusReport {
    let stats = server.ask_all(Command::Stats);
    let listeners = [server.listeners.clone(), super::nvmf::addresses(server)].concat();
    let state = server.state();
    StatusReport {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        uptime_s: server.since.elapsed().as_secs(),
        data_dir: server.data_dir.clone(),
        pool_uuid: uuid_text(&server.pool.uuid()),
        cores: u32::from(server.cores()),
        volumes: count(state.catalog.serving().list().len()),
        connections: count(stats.iter().map(|core| core.connections.len()).sum()),
        listeners,
        prefetch: state.prefetch,
        fast: tier(server, Role::Fast, &stats),
        cold: tier(server, Role::Cold, &stats),
        per_core: stats.iter().map(core_report).collect(),
    }
}

fn core_report(core: &CoreStats) -> CoreReport {
    CoreReport {
        cpu: core.cpu.map(count),
        slices: core.slices,
        fragments: core.fragments,
        connections: count(core.connections.len()),
    }
}

fn devices(server: &Server) -> Vec<DeviceReport> {
    let stats = server.ask_all(Command::Stats);
    let report = |(at, superblock): (usize, &crate::format::superblock::Superblock)| {
        let store = &server.stores[at];
        let mut report = DeviceReport {
            id: superblock.device.get(),
            role: superblock.role,
            path: server.paths[at].clone(),
            driver: match store.backing() {
                Backing::File(_) => "uring",
                Backing::Memory(_) => "memory",
            }
            .into(),
            emulate: store.emulates().map(|model| model.name.to_owned()),
            uuid: uuid_text(&superblock.device_uuid),
            online: !server.space.has_failed(superblock.device),
            total_bytes: u64::from(superblock.chunks) * superblock.chunk_bytes,
            ..DeviceReport::default()
        };
        for core in &stats {
            let device = &core.devices[at];
            report.used_bytes += device.used_bytes;
            report.reads += device.reads;
            report.writes += device.writes;
            report.read_bytes += device.read_bytes;
            report.write_bytes += device.write_bytes;
            report.errors += device.errors;
        }
        report
    };
    server.pool.superblocks.iter().enumerate().map(report).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn stats(server: &Server, reset: bool) -> StatsReport {
    // Under the lock, so that nobody sets a newer baseline meanwhile.
    let mut state = server.state();
    let now = server.ask_all(Command::Stats);
    let (since, before) = &state.baseline;
    let seconds = since.elapsed().as_secs_f64();
    let sum = |of: &dyn Fn(&CoreStats) -> u64| {
        let total = |cores: &[CoreStats]| cores.iter().map(of).sum::<u64>();
        total(&now).saturating_sub(total(before))
    };
    let counted = |of: fn(&Counters) -> u64| sum(&|core| of(&core.counters));
    let cold_reads = |core: &CoreStats| {
        let cold = server.pool.superblocks.iter().zip(&core.devices);
        cold.filter(|(sb, _)| sb.role == Role::Cold).map(|(_, device)| device.reads).sum()
    };
    let (late, missed) = (counted(|c| c.late), counted(|c| c.misses));
    let (reads, writes) = (counted(|c| c.reads), counted(|c| c.writes));
    let report = StatsReport {
        seconds,
        reads,
        writes,
        flushes: sum(&|core| core.flushes),
        read_bytes: counted(|c| c.read_bytes),
        write_bytes: counted(|c| c.write_bytes),
        errors: sum(&|core| core.errors),
        iops: (reads + writes) as f64 / seconds.max(1e-9),
        hits: counted(|c| c.hits),
        misses: missed + late,
        late,
        wasted: counted(|c| c.wasted),
        prefetched_bytes: counted(|c| c.staged) * server.config.fragment_size.bytes(),
        staged_bytes: now.iter().map(|core| core.staged_bytes).sum(),
        stage_budget_bytes: state.stage_budget * u64::from(server.cores()),
        cold_reads: sum(&cold_reads),
        cold_stalls: missed + late,
        spilled_fragments: counted(|c| c.spills),
        fast: tier(server, Role::Fast, &now),
        cold: tier(server, Role::Cold, &now),
    };
    if reset {
        state.baseline = (Instant::now(), now);
    }
    report
}

fn set_prefetch(
    server: &Server,
    kind: PrefetchKind,
    depth: Option<u32>,
    threshold: Option<f32>,
    share: Option<f32>,
    budget_bytes: Option<u64>,
) -> Answer {
    let mut state = server.state();
    let mut settings = state.settings;
    settings.prefetch_depth = depth.map_or(settings.prefetch_depth, |depth| depth as usize);
    settings.stage_threshold = threshold.unwrap_or(settings.stage_threshold);
    settings.prefetch_budget = share.unwrap_or(settings.prefetch_budget);
    settings.check().map_err(|error| AdminError::new(ErrorCode::BadRequest, error.to_string()))?;
    state.settings = settings;
    state.prefetch = kind;
    server.broadcast(|| Command::Prefetch(kind, settings));
    if let Some(bytes) = budget_bytes {
        state.stage_budget = bytes / u64::from(server.cores());
        let each = state.stage_budget;
        server.broadcast(|| Command::StageBudget(each));
    }
    Ok(AdminResponse::Done)
}

/// Asks the heat thread, which may be ending.
fn ask_heat<T>(server: &Server, ask: impl FnOnce(Sender<T>) -> HeatAsk) -> Result<T, AdminError> {
    let stopping = || AdminError::new(ErrorCode::Stopping, "the server is stopping");
    let heat = server.heat.lock().expect("no holder panics").as_ref().map(HeatThread::asks);
    let (answer, answered) = channel();
    heat.ok_or_else(stopping)?.send(ask(answer)).map_err(|_| stopping())?;
    answered.recv().map_err(|_| stopping())
}

fn heat_show(server: &Server, name: &str, map: bool) -> Answer {
    let id = server.state().catalog.find(name).map_err(catalog_error)?;
    let report = ask_heat(server, |answer| HeatAsk::Report(id, map, answer))?;
    let gone = || AdminError::new(ErrorCode::VolumeNotFound, format!("no volume {name:?}"));
    let report = report.ok_or_else(gone)?;
    let report = HeatReport { volume: name.to_owned(), ..report };
    Ok(AdminResponse::Heat(Box::new(report)))
}

fn heat_set(
    server: &Server,
    forecaster: Option<ForecasterKind>,
    horizon: Option<Horizon>,
) -> Answer {
    let change = HeatChange { forecaster, horizon };
    ask_heat(server, |done| HeatAsk::Set(change, done))?;
    Ok(AdminResponse::Done)
}

fn trace_start(server: &Server, path: &std::path::Path, volume: Option<&str>) -> Answer {
    let mut state = server.state();
    if state.recorder.is_some() {
        return Err(AdminError::new(ErrorCode::TraceRunning, "a trace is being recorded already"));
    }
    let only = volume.map(|name| state.catalog.find(name)).transpose().map_err(catalog_error)?;
    let named = |what: &dyn std::fmt::Display| {
        AdminError::new(ErrorCode::Io, format!("{}: {what}", path.display()))
    };
    if path.exists() {
        return Err(named(&"exists already"));
    }
    let recorder = Recorder::start(path, only).map_err(|error| named(&error))?;
    let tap = recorder.tap();
    server.broadcast(|| Command::Tap(Some(std::sync::Arc::clone(&tap))));
    state.recorder = Some(recorder);
    Ok(AdminResponse::Done)
}

fn trace_stop(server: &Server) -> Answer {
    let recorder =
        server.state().recorder.take().ok_or_else(|| {
            AdminError::new(ErrorCode::TraceNotRunning, "no trace is being recorded")
        })?;
    server.broadcast(|| Command::Tap(None));
    // An answer to a later command says that the tap is no longer in use.
    drop(server.ask_all(Command::Stats));
    let report = recorder.stop();
    let report =
        report.map_err(|error| AdminError::new(ErrorCode::Io, format!("the trace: {error}")))?;
    Ok(AdminResponse::Trace(report))
}
