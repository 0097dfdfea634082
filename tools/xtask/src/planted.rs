//! The bugs that the simulator must catch, and that no program is built with.

/// Hunts the named bugs, or all; true if each was caught.
pub fn hunt(bugs: &[String]) -> bool {
    crate::run_example("planted", "engine/planted", bugs)
}

#[cfg(test)]
mod tests {
    /// The features that a package turns on, those of its dependencies included.
    fn features(package: &str, more: &[&str]) -> String {
        let tree = ["tree", "--locked", "-e", "features", "-p", package];
        let output = crate::cargo(&[&tree[..], more].concat()).output().expect("cargo");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("names are text")
    }

    #[test]
    fn no_feature_of_the_command_turns_them_on() {
        let planted = "engine feature \"planted\"";
        assert!(!features("tools", &["--all-features"]).contains(planted));
        let asked = features("engine", &["--features", "planted", "-i", "engine"]);
        assert!(asked.contains(planted), "{asked}");
    }
}
