//! Requests per second, out of what each program prints.

use serde_json::Value;

fn iops(value: &Value) -> Option<f64> {
    value.as_f64().filter(|iops| *iops > 0.0)
}

/// From `tessera --json bench`.
pub fn of_tessera(output: &str) -> Result<f64, String> {
    let report: Value = serde_json::from_str(output).map_err(|e| format!("tessera: {e}"))?;
    iops(&report["iops"]).ok_or_else(|| "tessera: no figure".to_owned())
}

/// From `fio --output-format=json`: reads and writes of all jobs.
pub fn of_fio(output: &str) -> Result<f64, String> {
    // fio writes notes before its JSON.
    let start = output.find('{').ok_or("fio: no JSON")?;
    let report: Value = serde_json::from_str(&output[start..]).map_err(|e| format!("fio: {e}"))?;
    let jobs = report["jobs"].as_array().ok_or("fio: no jobs")?;
    let mut sum = 0.0;
    for job in jobs {
        if job["error"].as_i64() != Some(0) {
            return Err(format!("fio: error {}", job["error"]));
        }
        sum += job["read"]["iops"].as_f64().unwrap_or(0.0);
        sum += job["write"]["iops"].as_f64().unwrap_or(0.0);
    }
    if sum > 0.0 { Ok(sum) } else { Err("fio: no figure".to_owned()) }
}

/// From `tessera --json bench`: 99 of 100 requests took at most this.
pub fn p99_of_tessera(output: &str) -> Option<f64> {
    let report: Value = serde_json::from_str(output).ok()?;
    report["p99_us"].as_f64()
}

/// From `spdk_nvme_perf -L`: the line `99.00000% : MICROSECONDSus`.
pub fn p99_of_perf(output: &str) -> Option<f64> {
    let line = output.lines().find_map(|line| line.trim().strip_prefix("99.00000%"))?;
    line.trim_start_matches([' ', ':']).strip_suffix("us")?.parse().ok()
}

/// From SPDK's `bdevperf` and `spdk_nvme_perf`: the line `Total : IOPS MiB/s …`.
pub fn of_spdk(output: &str) -> Result<f64, String> {
    let total = output.lines().find_map(|line| line.trim().strip_prefix("Total"));
    let figure = total.and_then(|rest| rest.split_whitespace().find(|word| *word != ":"));
    let figure = figure.and_then(|word| word.parse().ok()).filter(|iops: &f64| *iops > 0.0);
    figure.ok_or_else(|| "SPDK: no figure".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found() {
        assert_eq!(of_tessera(r#"{"what":"x","iops":12.5}"#), Ok(12.5));
        assert!(of_tessera(r#"{"iops":0}"#).is_err());
        let fio = r#"note: x
{"jobs":[{"error":0,"read":{"iops":10.5},"write":{"iops":0.5}}]}"#;
        assert_eq!(of_fio(fio), Ok(11.0));
        assert!(of_fio(r#"{"jobs":[{"error":5}]}"#).is_err());
        let bdevperf = "\t Malloc0 : 3.00 1.5 2.3\n ====\n Total      :  597733.28  2334.90 0.00\n";
        assert_eq!(of_spdk(bdevperf), Ok(597_733.28));
        assert!(of_spdk("Total time").is_err());
        let perf =
            "Summary latency data\n===\n  50.00000% :    31.207us\n  99.00000% :    71.401us\n";
        assert_eq!(p99_of_perf(perf), Some(71.401));
        assert_eq!(p99_of_perf("no summary"), None);
        assert_eq!(p99_of_tessera(r#"{"p99_us":4.5}"#), Some(4.5));
    }
}
