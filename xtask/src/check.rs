//! `cargo xtask check`: what has to hold before a change lands.

use std::process::Command;

use crate::{cargo, tidy};

/// Module docs link to private parts for those who read the source.
const RUSTDOC_FLAGS: &str = "-D warnings -A rustdoc::private_intra_doc_links";

/// Runs every check and stops at the first that fails.
pub(crate) fn run() -> anyhow::Result<()> {
    cargo::run(&["fmt", "--all", "--check"])?;
    tidy::run()?;
    cargo::run(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    let mut doc = cargo::command(&["doc", "--workspace", "--no-deps"]);
    cargo::run_command(doc.env("RUSTDOCFLAGS", RUSTDOC_FLAGS))?;
    if has_cargo_deny() {
        cargo::run(&["deny", "--offline", "check", "bans", "licenses", "sources"])?;
    } else {
        eprintln!("skipped: cargo deny: not installed (cargo install cargo-deny)");
    }
    Ok(())
}

fn has_cargo_deny() -> bool {
    Command::new("cargo-deny")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
}
