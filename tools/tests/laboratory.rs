//! `tessera replay` offline, from outside: reports, pictures, errors and exit codes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn replay(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tessera"));
    command.arg("replay").args(arguments).output().expect("the binary starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn rows(output: &Output) -> Vec<serde_json::Value> {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).expect("a list")
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Reads of a round of twelve fragments far apart, followed by a stranger each, 40 ms apart:
/// what follows what can be learned, and no walk is in it.
fn rounds() -> String {
    let mut text = "time_us,op,offset_bytes,size_bytes\n".to_owned();
    for n in 0..9000_u64 {
        let fragment = if n % 2 == 0 {
            n / 2 % 12 * 1000 + 7
        } else {
            100_000 + n * 2_654_435_761 % 8_388_593
        };
        text += &format!("{},R,{},4096\n", n * 40_000, fragment << 20);
    }
    text
}

#[test]
fn a_trace_is_judged() {
    let dir = tempfile::tempdir().unwrap();
    let trace = write(dir.path(), "rounds.csv", &rounds());
    let svg = dir.path().join("misses.svg").display().to_string();
    // The round and its strangers do not fit into 16 fragments.
    let same = [&trace, "--fast-tier", "16MiB", "--json"];
    let judged = rows(&replay(&[&same[..], &["--svg", &svg]].concat()));
    let named = |name: &str| {
        let row = judged.iter().find(|row| row["prefetch"] == name);
        row.unwrap_or_else(|| panic!("{name} is among all"))
    };
    for name in "none readahead next-1 stride markov-1 markov-2 leap amp sarc mithril \
                 cooccurrence learned oracle oracle-candidates"
        .split_whitespace()
    {
        let row = named(name);
        assert_eq!((&row["trace"], &row["budget_pct"]), (&trace.as_str().into(), &25.0.into()));
        assert_eq!((&row["fragment_size"], &row["requests"]), (&(1 << 20).into(), &9000.into()));
    }
    let gain = |name: &str| named(name)["miss_reduction_pct"].as_f64().unwrap();
    assert_eq!(gain("none"), 0.0);
    assert!(gain("learned") > 40.0, "{}", named("learned"));
    assert!(gain("oracle") > 99.0, "{}", named("oracle"));
    assert!(gain("oracle-candidates") > gain("learned"), "{}", named("oracle-candidates"));
    assert!(gain("oracle-candidates") < 51.0, "strangers are nobody's candidates");
    assert!(named("learned")["ms_hidden"].as_f64() > Some(0.0));
    assert!(named("learned")["extra_pct"].as_f64() < Some(25.5));
    assert!(named("learned")["ns_per_crossing"].as_f64() > Some(0.0));
    let picture = fs::read_to_string(svg).unwrap();
    assert!(picture.starts_with("<svg") && picture.contains("oracle-candidates"));

    let chosen = rows(&replay(&[&same[..], &["--prefetch", "learned,none,learned"]].concat()));
    let names: Vec<_> = chosen.iter().map(|row| row["prefetch"].as_str().unwrap()).collect();
    assert_eq!(names, ["learned", "none"], "as asked, once");
    for field in ["misses", "issued", "late", "wasted", "ms_hidden", "device"] {
        assert_eq!(chosen[0][field], named("learned")[field], "{field} repeats exactly");
    }
    let table = replay(&[&trace, "--prefetch", "learned", "--fast-tier", "16MiB"]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("rounds.csv  learned"), "{table}");
}

#[test]
fn a_trace_is_judged_as_on_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let trace = write(dir.path(), "rounds.csv", &rounds());
    let judged = rows(&replay(&[&trace, "--served", "--fast-tier", "16MiB", "--json"]));
    let names: Vec<_> = judged.iter().map(|row| row["prefetch"].as_str().unwrap()).collect();
    assert_eq!(names, ["none", "learned"], "what a server can be told to run");
    let number = |row: usize, field: &str| judged[row]["device"][field].as_f64().unwrap();
    // Each read of 4 KiB comes when the head has long been idle.
    assert_eq!((number(0, "stalled"), number(0, "slow_reads")), (9000.0, 9000.0));
    assert!((number(0, "slow_p99_ms") - 8.027).abs() < 1e-3, "{}", judged[0]);
    // The round is foreseen, the strangers are not.
    assert!((4500.0..6000.0).contains(&number(1, "slow_reads")), "{}", judged[1]);
    assert_eq!(judged[1]["served"], true);
}

#[test]
fn a_server_is_not_judged_without_a_clock() {
    let dir = tempfile::tempdir().unwrap();
    let text = "seq_no,op,offset_bytes,size_bytes\n0,R,0,4096\n1,R,1048576,4096\n";
    let trace = write(dir.path(), "timeless.csv", text);
    let output = replay(&[&trace, "--served"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("--served needs one"), "{}", stderr(&output));
}

#[test]
fn the_shuffled_control_takes_the_gain_away() {
    let dir = tempfile::tempdir().unwrap();
    let trace = write(dir.path(), "rounds.csv", &rounds());
    let same = [&trace, "--fast-tier", "16MiB", "--json", "--prefetch", "learned"];
    let gain = |more: &[&str]| {
        let judged = rows(&replay(&[&same[..], more].concat()));
        assert_eq!(judged[0]["shuffled"], !more.is_empty());
        judged[0]["miss_reduction_pct"].as_f64().unwrap()
    };
    let (ordered, shuffled, other) =
        (gain(&[]), gain(&["--shuffle"]), gain(&["--shuffle", "--seed", "2"]));
    assert!(ordered > 40.0 && shuffled < ordered - 20.0, "{ordered} {shuffled}");
    assert!(shuffled > -0.2 && other > -0.2, "no harm: {shuffled} {other}");
    assert!((shuffled - other).abs() > 1e-9, "the seed gives another order");
}

#[test]
fn bad_lines_are_passed_over_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let good = write(dir.path(), "good.csv", &rounds());
    let mut lines: Vec<String> = rounds().lines().map(str::to_owned).collect();
    lines[5] = "soon,R,0,4096".to_owned();
    lines[9] = "7,R,0".to_owned();
    let bad = write(dir.path(), "bad.csv", &(lines.join("\n") + "\n"));
    let output = replay(&[&bad, "--json", "--prefetch", "next-1"]);
    assert_eq!(rows(&output)[0]["requests"], 8998);
    for text in ["bad.csv: 2 bad lines", "line 6: field time_us", "line 10: expected 4 fields"] {
        assert!(stderr(&output).contains(text), "{text}: {}", stderr(&output));
    }
    let whole = replay(&[&good, "--json", "--prefetch", "next-1"]);
    assert_eq!(stderr(&whole), "", "nothing to say, and no progress off a terminal");
}

#[test]
fn what_cannot_be_read_is_an_error_and_what_was_judged_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let good = write(dir.path(), "good.csv", &rounds());
    let head = "time_us,op,offset_bytes,size_bytes\n";
    for (name, text, says) in [
        ("none.csv", format!("{head}x,R,0,512\ny,R,0,512\n"), "2 bad, the first at line 2"),
        ("empty.csv", String::new(), "the trace is empty"),
        ("head.csv", head.to_owned(), "no request can be read"),
        ("text.csv", "Dear reader,\n".to_owned(), "not a trace"),
    ] {
        let path = write(dir.path(), name, &text);
        let output = replay(&[&path, "--json", "--prefetch", "none"]);
        assert_eq!(output.status.code(), Some(1), "{name}");
        let said = stderr(&output);
        assert!(said.contains(name) && said.contains(says), "{name}: {said}");
        assert!(output.stdout.is_empty());
        let output = replay(&[&good, &path, "--json", "--prefetch", "none"]);
        assert_eq!(output.status.code(), Some(1), "{name}");
        let kept: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(kept.len(), 1);
    }
    let output = replay(&["nowhere.csv"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output).matches("nowhere.csv").count(), 1, "{}", stderr(&output));
}

#[test]
fn options_that_do_not_go_together_are_wrong_usage() {
    for (arguments, names) in [
        (&["a.csv", "--live", "--volume", "v", "--fast-tier", "5%"][..], "'--fast-tier"),
        (&["a.csv", "--live"], "--volume"),
        (&["a.csv", "--volume", "v"], "--live"),
        (&["a.csv", "--speed", "2"], "--live"),
        (&["a.csv", "--depth", "17"], "prefetch_depth must be 1 to 16"),
        (&["a.csv", "--fast-tier", "512KiB"], "holds no fragment"),
        (&["a.csv", "--prefetch", "psychic"], "cooccurrence"),
        (&["a.csv", "--fragment-size", "3MiB"], "power of two"),
        (&["a.csv", "--served", "--shuffle"], "--shuffle"),
        (&["a.csv", "--served", "--prefetch", "none,oracle"], "not for oracle"),
    ] {
        let output = replay(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(names), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn a_trace_without_a_clock_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let text = "seq_no,op,offset_bytes,size_bytes\n0,R,0,4096\n1,R,1048576,4096\n";
    let trace = write(dir.path(), "t.csv", text);
    let output = replay(&[&trace, "--json", "--prefetch", "next-1"]);
    let judged = rows(&output);
    assert!(stderr(&output).contains("no clock"), "{}", stderr(&output));
    assert!(judged[0]["ms_hidden"].is_null());
    assert_eq!(judged[0]["timely_reduction_pct"], judged[0]["miss_reduction_pct"]);
}

#[test]
fn the_learned_one_keeps_its_budget_on_a_real_trace() {
    let parts =
        [env!("CARGO_MANIFEST_DIR"), "..", "..", "shared", "traces", "cloudphysics.csv.zst"];
    let path: PathBuf = parts.iter().collect();
    if !path.is_file() {
        println!("skipped: no shared traces beside the repository");
        return;
    }
    let path = path.display().to_string();
    for budget in ["25%", "10%"] {
        let arguments = [&path, "--json", "--prefetch", "learned,readahead", "--budget", budget];
        let judged = rows(&replay(&arguments));
        let number = |row: usize, field: &str| judged[row][field].as_f64().unwrap();
        let allowed = budget.trim_end_matches('%').parse::<f64>().unwrap() + 0.5;
        assert!(number(0, "extra_pct") <= allowed, "{}", judged[0]);
        let [ours, rule] = [0, 1].map(|row| number(row, "miss_reduction_pct"));
        assert!(ours > rule, "{ours} against {rule}");
    }
}
