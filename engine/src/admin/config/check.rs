//! What a configuration must hold beyond its syntax.

use super::{Config, MIN_DEVICE_BYTES};
use crate::admin::report::Role;
use crate::admin::size::exact_size;
use crate::units::FragmentSize;

impl Config {
    /// Ranges, and what keys mean together: the first offending key and why.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let share = |key, value: f32| match value {
            0.0..=1.0 => Ok(()),
            _ => Err((key, "expected a share from 0 to 1".to_owned())),
        };
        let range = |key, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err((key, format!("expected {low} to {high}")))
        };
        if !(0.05..=0.95).contains(&self.stage_threshold) {
            return Err(("stage_threshold", "expected a probability from 0.05 to 0.95".to_owned()));
        }
        share("prefetch_budget", self.prefetch_budget)?;
        share("train_cpu", self.train_cpu)?;
        share("spill_watermark", self.tier_policy.spill_watermark)?;
        range("cores", self.cores.unwrap_or(1).into(), 1, 64)?;
        let [least, most] = self.tuning.stage_threshold;
        if !(0.05 <= least && least <= most && most <= 0.95) {
            let message = "expected two probabilities from 0.05 to 0.95, the lower one first";
            return Err(("stage_threshold", message.to_owned()));
        }
        let [least, most] = self.tuning.prefetch_depth;
        if !(1 <= least && least <= most && most <= 16) {
            let message = "expected two numbers from 1 to 16, the lower one first";
            return Err(("prefetch_depth", message.to_owned()));
        }
        range("prefetch_depth", self.prefetch_depth.into(), 1, 16)?;
        range("sequence_length", self.sequence_length.into(), 2, 64)?;
        range("stop_timeout", self.stop_timeout.into(), 1, 3600)?;
        range("memory_per_core", self.memory_per_core.bytes(), 32 << 20, 1 << 40)?;
        range("map_budget", self.map_budget.bytes(), 1 << 20, 1 << 40)?;
        range("stage_budget", self.stage_budget.bytes(), 0, self.memory_per_core.bytes() * 3 / 4)?;
        if FragmentSize::from_bytes(self.fragment_size.bytes()).is_none() {
            let message = "expected a power of two from 64KiB to 16MiB".to_owned();
            return Err(("fragment_size", message));
        }
        for listener in &self.nbd {
            if !self.insecure_listen && !listener.is_local() {
                let message = format!(
                    "{listener} is reachable beyond this host and clients are not authenticated: \
                     set insecure_listen = true if that is wanted"
                );
                return Err(("nbd", message));
            }
        }
        let nvmf = [("nvmf", &self.nvmf), ("nvmf_discovery", &self.nvmf_discovery)];
        for (key, listener) in nvmf.iter().flat_map(|(k, all)| all.iter().map(|l| (*k, *l))) {
            if !self.insecure_listen && !listener.is_local() {
                let message = format!(
                    "{listener} is reachable beyond this host and hosts are not authenticated: \
                     set insecure_listen = true if that is wanted"
                );
                return Err((key, message));
            }
        }
        self.check_devices()
    }

    fn check_devices(&self) -> Result<(), (&'static str, String)> {
        let devices = &self.pool.devices;
        if !devices.iter().any(|d| d.role == Role::Fast) {
            return Err(("pool", "a pool needs a device with role = \"fast\"".to_owned()));
        }
        range_of_devices(devices.len())?;
        for (at, device) in devices.iter().enumerate() {
            let path = device.path.display();
            if devices[..at].iter().any(|earlier| earlier.path == device.path) {
                return Err(("pool", format!("{path} is listed twice")));
            }
            if device.size.is_some_and(|size| size.bytes() < MIN_DEVICE_BYTES) {
                let least = exact_size(MIN_DEVICE_BYTES);
                return Err(("pool", format!("{path} is too small: it needs {least}")));
            }
        }
        Ok(())
    }
}

/// Device indices are one byte, and 255 is spare.
fn range_of_devices(count: usize) -> Result<(), (&'static str, String)> {
    if count <= 255 { Ok(()) } else { Err(("pool", "a pool has at most 255 devices".to_owned())) }
}
