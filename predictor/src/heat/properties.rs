//! What holds for every forecaster, and how the tests feed them.

use proptest::prelude::*;

use super::point::PointModel;
use super::{
    Arima, Auto, Calibrated, Ewma, Forecast, Forecaster, ForecasterKind, HeatShape, Heatmap,
    HoltWinters, Lstm, Prophet, SeasonalNaive, Segment, Smoothing,
};

/// The model after a series of requests to one segment, bin by bin.
pub(super) fn feed<M: PointModel>(series: &[u32], bin_s: u64, mut model: M) -> (Heatmap, M) {
    let shape = HeatShape::new(bin_s, 512, 4).unwrap();
    let mut heat = Heatmap::new(shape);
    heat.record(0, Segment::new(1), false, 0);
    for (bin, requests) in (0_u64..).zip(series) {
        heat.record(bin * shape.bin_ns(), Segment::new(1), bin % 3 == 0, *requests);
        heat.advance((bin + 1) * shape.bin_ns());
        model.update(&heat, bin);
    }
    (heat, model)
}

/// What the model expects of that segment.
pub(super) fn expected<M: PointModel>(heat: &Heatmap, model: &mut M, horizon_bins: u16) -> f64 {
    let horizon = heat.shape().horizon(horizon_bins).unwrap();
    model.expect(heat, 0, horizon);
    model.expect(heat, 1, horizon)
}

fn check(forecast: &Forecast, heat: &Heatmap) {
    assert_eq!(forecast.segments().len(), heat.rows());
    for segment in forecast.segments() {
        let [low, median, high] = segment.quantiles;
        assert!(0.0 <= low && low <= median && median <= high && high.is_finite());
        assert!(segment.expected >= 0.0 && segment.expected.is_finite());
    }
    let sum: f64 = forecast.probabilities().map(|(_, p)| p).sum();
    assert!((sum - 1.0).abs() < 1e-9, "{sum}");
    assert!(forecast.probabilities().all(|(_, p)| (0.0..=1.0).contains(&p)));
}

/// Bins passed, segment, requests.
type Step = (u64, u64, u32);

fn steps(length: usize) -> impl Strategy<Value = Vec<Step>> {
    let gap = prop_oneof![8 => 0_u64..2, 2 => 2_u64..8, 1 => Just(500), 1 => Just(1 << 20)];
    let requests = prop_oneof![6 => 0_u32..50, 1 => Just(0), 1 => Just(u32::MAX)];
    proptest::collection::vec((gap, 0_u64..9, requests), 0..length)
}

/// Hours, so that a day and two are soon seen; fewer rows than segments.
fn run(kind: ForecasterKind, steps: &[Step]) {
    let shape = HeatShape::new(3600, 60, 6).unwrap();
    let mut heat = Heatmap::new(shape);
    let horizon = shape.horizon(3).unwrap();
    // Training costs time, not soundness: a step a round is enough.
    let small = || Box::new(Lstm::with_budget(horizon, 1, 1));
    let mut forecaster: Box<dyn Forecaster> = match kind {
        ForecasterKind::Lstm => small(),
        ForecasterKind::Auto => {
            Box::new(Auto::new(vec![Box::new(Calibrated::new(Ewma::new(2.0), horizon)), small()]))
        }
        _ => kind.build(shape, horizon, 1),
    };
    forecaster.update(&heat).unwrap();
    check(&forecaster.forecast(&heat).unwrap(), &heat);
    let mut bin = 0_u64;
    for (gap, segment, requests) in steps {
        bin += gap;
        heat.record(bin.saturating_mul(shape.bin_ns()), Segment::new(*segment), false, *requests);
        forecaster.update(&heat).unwrap();
        if *gap > 0 {
            check(&forecaster.forecast(&heat).unwrap(), &heat);
        }
    }
}

/// What a model says before it is made sound: soundness must not hide nonsense.
fn finite<M: PointModel>(series: &[u32], bin_s: u64, model: M) {
    let (heat, mut model) = feed(series, bin_s, model);
    for horizon_bins in [1, 7] {
        assert!(expected(&heat, &mut model, horizon_bins).is_finite());
    }
}

fn run_all(kinds: &[ForecasterKind], steps: &[Step]) {
    kinds.iter().for_each(|kind| run(*kind, steps));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn classic_forecasts_are_sound(steps in steps(160)) {
        use ForecasterKind::{Arima, Ewma, HoltWinters, Prophet, SeasonalNaive};
        run_all(&[Ewma, SeasonalNaive, HoltWinters, Arima, Prophet], &steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn expectations_are_finite_by_themselves(
        series in proptest::collection::vec(
            prop_oneof![4 => 0_u32..9, 2 => Just(0), 1 => Just(u32::MAX)], 0..150,
        ),
        bin_s in prop_oneof![Just(30_u64), Just(3600), Just(43_200)],
    ) {
        let smoothing = Smoothing { level: 0.9, trend: 0.9, season: 0.9, damping: 1.0 };
        finite(&series, bin_s, Ewma::new(3.0));
        finite(&series, bin_s, SeasonalNaive::new(Some(24)));
        finite(&series, bin_s, HoltWinters::new(smoothing, Some(12)));
        finite(&series, bin_s, Arima::new());
        finite(&series, bin_s, Prophet::new());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn learned_and_chosen_forecasts_are_sound(steps in steps(100)) {
        run_all(&[ForecasterKind::Lstm, ForecasterKind::Auto], &steps);
    }
}

#[test]
fn empty_and_constant_histories_are_survived() {
    for kind in ForecasterKind::ALL {
        run(kind, &[]);
        run(kind, &[(1, 1, 0); 80]);
        run(kind, &[(1, 1, 7); 80]);
        run(kind, &[(1, 1, u32::MAX); 80]);
    }
}
