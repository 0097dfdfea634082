//! Steps that all run, whatever becomes of those before, and their summary.

use std::process::Command;
use std::time::{Duration, Instant};

enum End {
    Passed(Duration),
    Failed(Duration),
    Skipped(&'static str),
}

/// The steps so far.
#[derive(Default)]
pub struct Steps(Vec<(String, End)>);

impl Steps {
    /// Runs a step.
    pub fn add(&mut self, name: impl Into<String>, command: Command) {
        self.attempt(name, || Ok(run(command)));
    }

    /// Runs a step that is true if it passed, or says why it cannot run here.
    pub fn attempt(
        &mut self,
        name: impl Into<String>,
        step: impl FnOnce() -> Result<bool, &'static str>,
    ) {
        let name = name.into();
        println!("\n==> {name}");
        let started = Instant::now();
        let passed = step();
        let took = started.elapsed();
        let end = match passed {
            Ok(true) => End::Passed(took),
            Ok(false) => End::Failed(took),
            Err(why) => End::Skipped(why),
        };
        self.0.push((name, end));
    }

    /// Counts a step as not run.
    pub fn skip(&mut self, name: impl Into<String>, why: &'static str) {
        self.0.push((name.into(), End::Skipped(why)));
    }

    /// Prints the summary; true if nothing failed.
    pub fn finish(self) -> bool {
        println!();
        let (mut passed, mut failed) = (0, 0);
        for (name, end) in &self.0 {
            match end {
                End::Passed(took) => println!("{name:<16} passed  {:>6.1} s", took.as_secs_f64()),
                End::Failed(took) => println!("{name:<16} FAILED  {:>6.1} s", took.as_secs_f64()),
                End::Skipped(why) => println!("{name:<16} skipped: {why}"),
            }
            passed += usize::from(matches!(end, End::Passed(_)));
            failed += usize::from(matches!(end, End::Failed(_)));
        }
        println!("{passed} passed, {failed} failed");
        failed == 0
    }
}

/// Runs a command to its end; false also if it cannot start.
pub fn run(mut command: Command) -> bool {
    match command.status() {
        Ok(status) => status.success(),
        Err(error) => {
            println!("{}: {error}", command.get_program().to_string_lossy());
            false
        }
    }
}
