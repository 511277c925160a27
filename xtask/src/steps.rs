//! Named steps that are all run, whatever fails, with their times and an honest end.

use std::process::{Command, ExitCode};
use std::time::Instant;

#[derive(Default)]
pub(crate) struct Steps {
    lines: Vec<String>,
    failed: bool,
}

impl Steps {
    pub(crate) fn command(&mut self, name: &str, command: &mut Command) {
        self.step(name, || {
            let status = command.status().map_err(|error| anyhow::anyhow!("{}: {error}", command.get_program().display()))?;
            anyhow::ensure!(status.success(), "{status}");
            Ok(())
        });
    }

    pub(crate) fn step(&mut self, name: &str, run: impl FnOnce() -> anyhow::Result<()>) {
        println!("\n== {name}");
        let began = Instant::now();
        let result = run();
        let seconds = began.elapsed().as_secs();
        let outcome = match &result {
            Ok(()) => "passed",
            Err(error) => {
                println!("{error:#}");
                self.failed = true;
                "FAILED"
            }
        };
        self.lines.push(format!("  {name:<14} {outcome:<7} {seconds:>4} s"));
    }

    pub(crate) fn end(self) -> ExitCode {
        println!("\n== steps\n{}", self.lines.join("\n"));
        if self.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}
