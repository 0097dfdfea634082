//! Completions and manual pages hold every command, and shells take the scripts.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use clap::CommandFactory;
use tools::cli::Cli;

fn tessera(arguments: &[&str]) -> Output {
    let output =
        Command::new(env!("CARGO_BIN_EXE_tessera")).args(arguments).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Every command with its page's name.
fn each(command: &clap::Command, page: &str, see: &mut dyn FnMut(&str, &clap::Command)) {
    see(page, command);
    for sub in command.get_subcommands() {
        each(sub, &format!("{page}-{}", sub.get_name()), see);
    }
}

#[test]
fn every_command_has_a_page_with_its_options() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("made/man1");
    tessera(&["man", pages.to_str().unwrap()]);
    let mut command = Cli::command();
    command.build();
    let mut seen = 0;
    each(&command, "tessera", &mut |page, command| {
        if page.contains("-help") {
            return;
        }
        seen += 1;
        let path = pages.join(format!("{page}.1"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{page}: {e}"));
        for long in command.get_arguments().filter_map(clap::Arg::get_long) {
            let roff = format!("\\-\\-{}", long.replace('-', "\\-"));
            assert!(text.contains(&roff), "{page} does not tell of --{long}");
        }
    });
    assert!(seen > 20, "{seen} commands");
    render(&pages.join("tessera-image-import.1"));
}

/// man itself reads a page without a complaint.
fn render(page: &Path) {
    // With an explicit -T, or if told to keep formatting, bold letters come overstruck.
    let mut man = Command::new("man");
    man.args(["--warnings", "-E", "UTF-8", "-l"]).arg(page);
    man.env("MANROFFSEQ", "").env("MANWIDTH", "200").env_remove("MAN_KEEP_FORMATTING");
    match man.output() {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("allow-backing"), "{text}");
            assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        _ => println!("skipped: man is not installed"),
    }
}

#[test]
fn shells_take_the_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let script = tessera(&["completions", shell]).stdout;
        let text = String::from_utf8_lossy(&script);
        for word in ["allow-backing", "spill", "completions"] {
            assert!(text.contains(word), "{shell}: no {word}");
        }
        let check = Command::new(shell).arg("-n").stdin(Stdio::piped()).spawn();
        let Ok(mut check) = check else {
            println!("skipped: {shell} is not installed");
            continue;
        };
        check.stdin.take().unwrap().write_all(&script).unwrap();
        assert!(check.wait().unwrap().success(), "{shell} -n");
    }
}

#[test]
fn bash_completes_commands_and_options() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tessera.bash");
    std::fs::write(&path, tessera(&["completions", "bash"]).stdout).unwrap();
    let complete = |line: &[&str]| {
        let script = format!(
            ". {}; COMP_WORDS=({}); COMP_CWORD={}; _tessera tessera '{}' '{}'; echo \"${{COMPREPLY[@]}}\"",
            path.display(),
            line.join(" "),
            line.len() - 1,
            line[line.len() - 1],
            line[line.len() - 2],
        );
        let output = Command::new("bash").args(["-c", &script]).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    match complete(&["tessera", "vol"]) {
        Ok(words) => assert_eq!(words, "volume"),
        Err(_) => return println!("skipped: bash is not installed"),
    }
    assert_eq!(complete(&["tessera", "image", "import", "--allow"]).unwrap(), "--allow-backing");
}
