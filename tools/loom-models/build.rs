//! Sets `cfg(loom)` for this crate alone: what it depends on stays as it is for all others.

fn main() {
    println!("cargo::rustc-cfg=loom");
    println!("cargo::rerun-if-changed=build.rs");
}
