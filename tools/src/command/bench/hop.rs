//! What it costs that a request's owner is another core.
//!
//! A request to another core takes two hops, there and back. Per hop: half of what
//! it takes longer, on the median, than the same request to a slice of the core itself.

use engine::core::cpus::allowed_cpus;
use engine::core::distance::cache_line_round_trip_ns;
use engine::target::load::Tally;
use serde::Serialize;

use super::BenchError;
use super::cell::Owner;
use crate::table::{Align, Pairs, Table};

/// Longer than any measurement: the cores never sleep.
const POLLING_US: u32 = u32::MAX / 1000;
/// Cores sleep as soon as they have nothing to do.
const PARKED_US: u32 = 0;

/// Medians of one way of waiting.
#[derive(Clone, Debug, Serialize)]
pub struct Hop {
    /// How a core waits for work: `polling` or `parked`.
    pub waiting: &'static str,
    /// Median latency of requests to the core's own segments.
    pub own_ns: u64,
    /// Of those to the other core's.
    pub other_ns: u64,
    /// Half the difference.
    pub ns_per_hop: u64,
}

/// Polling and parked.
#[derive(Clone, Debug, Serialize)]
pub struct HopReport {
    /// How far apart the first two CPUs are; absent if there is one.
    pub cache_line_round_trip_ns: Option<f64>,
    /// Each way of waiting.
    pub hops: Vec<Hop>,
}

impl HopReport {
    /// For people.
    pub fn table(&self) -> Table {
        let columns = ["own core ns", "other core ns", "per hop ns"].map(|c| (c, Align::Right));
        let mut table = Table::new(&[&[("cores", Align::Left)], &columns[..]].concat());
        for hop in &self.hops {
            let figures = [hop.own_ns, hop.other_ns, hop.ns_per_hop].map(|ns| ns.to_string());
            table.row([vec![hop.waiting.to_owned()], figures.to_vec()].concat());
        }
        table
    }
}

/// How far apart the CPUs are.
#[derive(Clone, Debug, Serialize)]
pub struct Distance {
    /// Between the first two; absent if there is one.
    pub cache_line_round_trip_ns: Option<f64>,
}

impl Distance {
    /// For people.
    pub fn table(&self) -> Pairs {
        let text = self.cache_line_round_trip_ns.map_or("-".to_owned(), |ns| format!("{ns:.0} ns"));
        Pairs::default().with("cache line round trip", text)
    }
}

/// Between the first two CPUs.
pub(super) fn distance() -> Option<f64> {
    match allowed_cpus()[..] {
        [a, b, ..] => cache_line_round_trip_ns(a, b),
        _ => None,
    }
}

/// Compares, with a measurement by spin time and owner.
pub(super) fn compare(
    measure: impl Fn(u32, Owner) -> Result<Tally, BenchError>,
) -> Result<HopReport, BenchError> {
    let median = |spin_us, owner| {
        Ok::<u64, BenchError>(measure(spin_us, owner)?.latency_ns.value_at_quantile(0.5))
    };
    let mut hops = Vec::new();
    for (waiting, spin_us) in [("polling", POLLING_US), ("parked", PARKED_US)] {
        let (own_ns, other_ns) = (median(spin_us, Owner::Own)?, median(spin_us, Owner::Next)?);
        let ns_per_hop = other_ns.saturating_sub(own_ns) / 2;
        hops.push(Hop { waiting, own_ns, other_ns, ns_per_hop });
    }
    Ok(HopReport { cache_line_round_trip_ns: distance(), hops })
}
