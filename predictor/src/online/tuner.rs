//! Settings that follow from what staging brings, within bounds.
//!
//! Each look compares the counters with those of the look before. Too many stages wasted
//! raise `stage_threshold`, few with budget to spare lower it; many that come late raise
//! `prefetch_depth`. One setting moves at a time; if the share of cold reads that were staged
//! falls clearly after a move, it is taken back and left alone for a while.
//!
//! Invariants: a setting never leaves its bounds; every change has its reason in words. It
//! keeps no clock: who looks decides how often.
#![forbid(unsafe_code)]

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::ledger::Ledger;
use crate::prefetch::Settings;

/// Cold reads that a look must have to tell anything.
const ENOUGH: u64 = 256;
/// Share of finished stages, wasted, above which the threshold rises, and below which it falls.
const WASTEFUL: f64 = 0.5;
const THRIFTY: f64 = 0.15;
/// Part of the budget in use, below which there is some to spare.
const SPARE: f64 = 0.5;
/// Share of used stages, late, above which is looked further ahead.
const LATE: f64 = 0.3;
const FACTOR: f32 = 1.25;
const DEEPER: usize = 4;
/// Fall of the share staged that takes a change back.
const HARM: f64 = 0.05;
/// Looks without a change after one has been taken back.
const REST: u32 = 10;

/// What the user allows.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds {
    /// Of `stage_threshold`.
    pub stage_threshold: RangeInclusive<f32>,
    /// Of `prefetch_depth`.
    pub prefetch_depth: RangeInclusive<usize>,
}

/// What one look has found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sight {
    /// Counters since the start; monotonic.
    pub ledger: Ledger,
    /// Extra traffic now, as a share of what there would be without staging.
    pub extra_share: f64,
}

/// A change of one setting.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The setting's name.
    pub setting: String,
    /// Its value before.
    pub from: f32,
    /// Its value now.
    pub to: f32,
    /// Why.
    pub reason: String,
}

/// A change that is on trial.
struct Trial {
    before: Settings,
    staged_share: f64,
    setting: &'static str,
}

/// Watches and adjusts.
pub struct Tuner {
    bounds: Bounds,
    last: Ledger,
    trial: Option<Trial>,
    rest: u32,
}

/// The counters between two looks, as shares.
struct Window {
    staged: f64,
    wasted: f64,
    late: f64,
    finished: u64,
}

fn part(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

impl Tuner {
    /// One that has seen nothing.
    pub fn new(bounds: Bounds) -> Tuner {
        Tuner { bounds, last: Ledger::default(), trial: None, rest: 0 }
    }

    /// Looks, and changes the settings if that promises more; `None` if they stay.
    pub fn look(&mut self, sight: &Sight, settings: &mut Settings) -> Option<Change> {
        let window = self.window(&sight.ledger)?;
        if let Some(trial) = self.trial.take()
            && window.staged < trial.staged_share - HARM
        {
            self.rest = REST;
            let reason = format!(
                "after the change {:.0} % of cold reads were staged, {:.0} % before",
                100.0 * window.staged,
                100.0 * trial.staged_share
            );
            let taken_back = change(trial.setting, settings, &trial.before, reason);
            *settings = trial.before;
            return Some(taken_back);
        }
        if self.rest > 0 {
            self.rest -= 1;
            return None;
        }
        let before = *settings;
        let (setting, reason) = self.adjust(&window, sight.extra_share, settings)?;
        self.trial = Some(Trial { before, staged_share: window.staged, setting });
        Some(change(setting, &before, settings, reason))
    }

    /// What happened since the last look that told anything.
    fn window(&mut self, ledger: &Ledger) -> Option<Window> {
        let since = |count: fn(&Ledger) -> u64| count(ledger).saturating_sub(count(&self.last));
        let (hits, late) = (since(|l| l.hits), since(|l| l.late));
        let (misses, wasted) = (since(|l| l.misses), since(|l| l.wasted));
        let reads = hits + late + misses;
        if reads < ENOUGH {
            return None;
        }
        self.last = *ledger;
        let finished = hits + late + wasted;
        Some(Window {
            staged: part(hits + late, reads),
            wasted: part(wasted, finished),
            late: part(late, hits + late),
            finished,
        })
    }

    fn adjust(
        &self,
        window: &Window,
        extra_share: f64,
        settings: &mut Settings,
    ) -> Option<(&'static str, String)> {
        let within = |value: f32| {
            value.clamp(*self.bounds.stage_threshold.start(), *self.bounds.stage_threshold.end())
        };
        let depths = &self.bounds.prefetch_depth;
        let before = *settings;
        let reason = if window.finished < ENOUGH / 4 {
            return None;
        } else if window.wasted > WASTEFUL {
            settings.stage_threshold = within(settings.stage_threshold * FACTOR);
            format!("{:.0} % of the stages were not used", 100.0 * window.wasted)
        } else if window.late > LATE {
            let deeper = settings.prefetch_depth + DEEPER;
            settings.prefetch_depth = deeper.clamp(*depths.start(), *depths.end());
            format!("{:.0} % of the stages used were still on their way", 100.0 * window.late)
        } else if window.wasted < THRIFTY
            && extra_share < SPARE * f64::from(settings.prefetch_budget)
        {
            settings.stage_threshold = within(settings.stage_threshold / FACTOR);
            format!(
                "only {:.0} % of the stages were not used, and {:.0} % of the budget is",
                100.0 * window.wasted,
                100.0 * extra_share.max(0.0) / f64::from(settings.prefetch_budget)
            )
        } else {
            return None;
        };
        let setting = if settings.prefetch_depth != before.prefetch_depth {
            "prefetch_depth"
        } else {
            "stage_threshold"
        };
        (*settings != before).then_some((setting, reason))
    }
}

fn change(setting: &str, before: &Settings, after: &Settings, reason: String) -> Change {
    let value = |settings: &Settings| match setting {
        "prefetch_depth" => settings.prefetch_depth as f32,
        _ => settings.stage_threshold,
    };
    Change { setting: setting.to_owned(), from: value(before), to: value(after), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds() -> Bounds {
        Bounds { stage_threshold: 0.1..=0.6, prefetch_depth: 4..=16 }
    }

    /// A look after so many more hits, late and wasted stages, and misses.
    fn sight(before: &mut Ledger, [hits, late, wasted, misses]: [u64; 4]) -> Sight {
        *before += Ledger { issued: 0, hits, late, wasted, misses };
        Sight { ledger: *before, extra_share: 0.0 }
    }

    #[test]
    fn waste_raises_the_threshold_up_to_its_bound() {
        let mut tuner = Tuner::new(bounds());
        let mut settings = Settings { stage_threshold: 0.3, ..Settings::default() };
        let mut ledger = Ledger::default();
        let change =
            tuner.look(&sight(&mut ledger, [300, 0, 700, 100]), &mut settings).expect("a change");
        assert_eq!((change.setting.as_str(), change.from), ("stage_threshold", 0.3));
        assert!((settings.stage_threshold - 0.375).abs() < 1e-6, "{change:?}");
        assert_eq!(change.reason, "70 % of the stages were not used");
        for _ in 0..20 {
            tuner.look(&sight(&mut ledger, [300, 0, 700, 100]), &mut settings);
        }
        assert!((settings.stage_threshold - 0.6).abs() < 1e-6, "never beyond");
        assert!(tuner.look(&sight(&mut ledger, [300, 0, 700, 100]), &mut settings).is_none());
    }

    #[test]
    fn late_stages_are_asked_for_earlier_and_thrift_is_spent() {
        let mut tuner = Tuner::new(bounds());
        let mut settings = Settings { prefetch_depth: 14, ..Settings::default() };
        let mut ledger = Ledger::default();
        let change = tuner.look(&sight(&mut ledger, [300, 400, 100, 0]), &mut settings);
        assert_eq!(change.map(|change| change.setting).as_deref(), Some("prefetch_depth"));
        assert_eq!(settings.prefetch_depth, 16);
        let change = tuner.look(&sight(&mut ledger, [900, 0, 20, 10]), &mut settings);
        assert!(settings.stage_threshold < 0.15, "{change:?}");
    }

    #[test]
    fn what_does_harm_is_taken_back_and_left_alone() {
        let mut tuner = Tuner::new(bounds());
        let mut settings = Settings::default();
        let mut ledger = Ledger::default();
        tuner.look(&sight(&mut ledger, [300, 0, 700, 100]), &mut settings).expect("a change");
        let change =
            tuner.look(&sight(&mut ledger, [300, 0, 700, 600]), &mut settings).expect("back");
        assert!(change.reason.starts_with("after the change 33 %"), "{}", change.reason);
        assert_eq!(settings, Settings::default());
        for _ in 0..REST {
            assert!(tuner.look(&sight(&mut ledger, [300, 0, 700, 600]), &mut settings).is_none());
        }
        assert!(tuner.look(&sight(&mut ledger, [300, 0, 700, 600]), &mut settings).is_some());
    }

    #[test]
    fn too_little_tells_nothing() {
        let mut tuner = Tuner::new(bounds());
        let mut settings = Settings::default();
        let mut ledger = Ledger::default();
        assert!(tuner.look(&sight(&mut ledger, [0, 0, 1000, 10]), &mut settings).is_none());
        let grown = sight(&mut ledger, [0, 0, 0, 250]);
        assert!(tuner.look(&grown, &mut settings).is_some(), "both looks together do");
    }
}
