//! Running `ip` and `nft` with a script, in the host's namespace or a cell's.
//!
//! One process applies one script: what a reader sees is what the kernel gets, and an operator can repeat it by hand.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::NetworkError;
use crate::sys::namespace::NetworkNamespace;

/// Runs `ip -batch -` with `script`.
pub(super) fn ip(namespace: Option<&NetworkNamespace>, script: &str) -> Result<(), NetworkError> {
    run("ip", &["-batch", "-"], namespace, script)
}

/// Runs `nft -f -` with `script`: all of it takes effect, or nothing.
pub(super) fn nft(namespace: Option<&NetworkNamespace>, script: &str) -> Result<(), NetworkError> {
    run("nft", &["-f", "-"], namespace, script)
}

fn run(tool: &'static str, arguments: &[&str], namespace: Option<&NetworkNamespace>, script: &str) -> Result<(), NetworkError> {
    let mut command = Command::new(tool);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let outcome = match namespace {
        None => feed(command, script),
        // A thread of its own enters the namespace; the process inherits it from there.
        Some(namespace) => {
            let script = script.to_owned();
            namespace.run(move || feed(command, &script))
        }
    };
    let output = outcome.map_err(|source| NetworkError::Tool { tool, source })?;
    match output.status.success() {
        true => Ok(()),
        false => Err(NetworkError::Refused { tool, message: String::from_utf8_lossy(&output.stderr).trim().to_owned() }),
    }
}

fn feed(mut command: Command, script: &str) -> std::io::Result<std::process::Output> {
    // Its own process group: a Ctrl-C meant for the daemon does not cut a half-applied script.
    let mut child = command.process_group(0).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes())?;
    }
    child.wait_with_output()
}
