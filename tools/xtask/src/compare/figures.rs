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

/// From SPDK's `bdevperf`: the line `Total : IOPS MiB/s …`.
pub fn of_bdevperf(output: &str) -> Result<f64, String> {
    let total = output.lines().find_map(|line| line.trim().strip_prefix("Total"));
    let figure = total.and_then(|rest| rest.split_whitespace().find(|word| *word != ":"));
    let figure = figure.and_then(|word| word.parse().ok()).filter(|iops: &f64| *iops > 0.0);
    figure.ok_or_else(|| "bdevperf: no figure".to_owned())
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
        assert_eq!(of_bdevperf(bdevperf), Ok(597_733.28));
        assert!(of_bdevperf("Total time").is_err());
    }
}
