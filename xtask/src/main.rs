//! `cargo xtask`: tasks of those who work on Emberbox. Nothing here is part of what is installed.

mod lab;
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
    /// Run a command on a machine with KVM, cgroup v2 and nftables that QEMU emulates. Its output and exit status are the command's.
    Lab(lab::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Lab(arguments) => lab::run(arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::from(lab::OWN_FAILURE)
    })
}
