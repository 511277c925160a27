//! `cargo xtask`: tasks of those who work on Emberbox. Nothing here is part of what is installed.

mod ci;
mod lab;
mod steps;
mod unsafe_code;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks of those who work on Emberbox")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// What CI runs on a machine that has all packages: the lints, then every suite.
    Ci,
    /// The format, clippy with warnings denied, what dependencies may be (cargo-deny), and where unsafe code is.
    Lint,
    /// Run a command on a machine with KVM, cgroup v2 and nftables that QEMU emulates. Its output and exit status are the command's.
    Lab(lab::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Ci => return ci::ci(),
        Task::Lint => return ci::lint(),
        Task::Lab(arguments) => lab::run(arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::from(lab::OWN_FAILURE)
    })
}
