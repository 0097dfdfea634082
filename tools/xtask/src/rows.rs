//! `docs/rows.md`: one row per capability, with the command that shows it.
//!
//! Each command runs under `sh` in the workspace, with `tessera` in PATH and
//! `TESSERA_DATA` in a fresh directory that is removed afterwards. It passes if it exits 0
//! and its output contains what the row says it prints.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Debug, PartialEq, Eq)]
struct Row {
    name: String,
    what: String,
    command: String,
    prints: String,
}

/// Runs the named rows, or all; true if they pass.
pub fn run(root: &Path, names: &[String]) -> bool {
    let path = root.join("docs/rows.md");
    let rows = match fs::read_to_string(&path) {
        Ok(text) => parse(&text),
        Err(error) => {
            println!("{}: {error}", path.display());
            return false;
        }
    };
    if let Some(unknown) = names.iter().find(|name| rows.iter().all(|row| row.name != **name)) {
        println!("{}: no row {unknown}", path.display());
        return false;
    }
    if !crate::build_tessera() {
        return false;
    }
    let chosen = rows.iter().filter(|row| names.is_empty() || names.contains(&row.name));
    let (mut passed, mut failed) = (0, 0);
    for row in chosen {
        match show(root, row) {
            Ok(()) => {
                println!("{:<4} passed  {}", row.name, row.what);
                passed += 1;
            }
            Err(why) => {
                println!("{:<4} FAILED  {}\n     {}\n{why}", row.name, row.what, row.command);
                failed += 1;
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    failed == 0 && passed > 0
}

/// Runs one row; the error is what to print.
fn show(root: &Path, row: &Row) -> Result<(), String> {
    let scratch =
        std::env::temp_dir().join(format!("tessera-row-{}-{}", std::process::id(), row.name));
    fs::create_dir_all(&scratch).map_err(|e| format!("{}: {e}", scratch.display()))?;
    let output = Command::new("sh")
        .args(["-c", &row.command])
        .current_dir(root)
        .env("TESSERA_DATA", scratch.join("data"))
        .env("PATH", search_path())
        .output();
    let removed = fs::remove_dir_all(&scratch);
    let output = output.map_err(|e| format!("sh: {e}"))?;
    removed.map_err(|e| format!("{}: {e}", scratch.display()))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    if !output.status.success() {
        return Err(format!("{}\n{text}", output.status));
    }
    if !text.contains(&row.prints) {
        return Err(format!("does not print `{}` but\n{text}", row.prints));
    }
    Ok(())
}

/// PATH with the freshly built `tessera` first.
fn search_path() -> OsString {
    let built = crate::tessera();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = built.parent().map(PathBuf::from).into_iter().chain(std::env::split_paths(&path));
    std::env::join_paths(all).unwrap_or(path)
}

/// Rows of every table with four columns: row, what, command, prints.
fn parse(text: &str) -> Vec<Row> {
    let cells = |line: &str| -> Option<Row> {
        let line = line.trim().strip_prefix('|')?.strip_suffix('|')?.replace(r"\|", "\0");
        let cell = |text: &str| text.trim().trim_matches('`').replace('\0', "|");
        let cells: Vec<String> = line.split('|').map(cell).collect();
        let [name, what, command, prints] = <[String; 4]>::try_from(cells).ok()?;
        Some(Row { name, what, command, prints })
    };
    let is_row = |row: &Row| {
        let mut letters = row.name.chars();
        letters.next().is_some_and(|c| c.is_ascii_uppercase())
            && letters.next().is_some_and(|c| c.is_ascii_digit())
    };
    text.lines().filter_map(cells).filter(is_row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r"
# Rows
| row | what | command | prints |
|---|---|---|---|
| A1 | fragments | `echo a \| cat` | `a` |
| F9 | fio | `true` | |
| not a row |
";

    #[test]
    fn rows_are_read_from_markdown() {
        let rows = parse(TEXT);
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].name.as_str(), rows[0].command.as_str()), ("A1", "echo a | cat"));
        assert_eq!(rows[1].prints, "");
    }

    #[test]
    fn a_row_passes_by_exit_code_and_output() {
        let row = |command: &str, prints: &str| Row {
            name: "A1".into(),
            what: String::new(),
            command: command.into(),
            prints: prints.into(),
        };
        let root = Path::new("/");
        assert_eq!(show(root, &row("echo $TESSERA_DATA", "tessera-row-")), Ok(()));
        assert!(show(root, &row("echo a", "b")).unwrap_err().contains("does not print"));
        assert!(show(root, &row("echo a; exit 3", "a")).unwrap_err().contains('3'));
    }
}
