//! Emberbox: MicroVMs behind the AWS API on a machine of one's own. The daemon (`emberbox serve`) and the commands around it.
//!
//! This binary parses, constructs, starts and shuts down; it decides nothing itself.
#![forbid(unsafe_code)]

mod account_command;
mod arguments;
mod audit;
mod build_logs;
mod config;
mod doctor;
mod environment;
mod events;
mod failpoints;
mod json_lines;
mod limits;
mod logs_command;
mod open_files;
mod parts;
mod salvage;
mod serve;
mod trust;

use std::process::ExitCode;

use arguments::{Arguments, Verb};
use clap::Parser;

fn main() -> ExitCode {
    let outcome = match Arguments::parse().verb {
        Verb::Serve(arguments) => serve::run(arguments),
        Verb::Env(arguments) => environment::run(arguments),
        Verb::Account(arguments) => account_command::run(arguments),
        Verb::Logs(arguments) => logs_command::run(arguments),
        Verb::Audit(arguments) => audit::run(arguments),
        Verb::Doctor(arguments) => doctor::run(arguments),
        Verb::Events(arguments) => events::run(arguments),
        Verb::Salvage(arguments) => salvage::run(&arguments),
        Verb::Failpoints => failpoints::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("emberbox: {error:#}");
            ExitCode::FAILURE
        }
    }
}
