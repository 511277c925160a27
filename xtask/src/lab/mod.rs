//! The lab: a machine with AMD-V that QEMU emulates, running Debian's kernel, so that what needs `/dev/kvm`, cgroup v2 controllers or a power cut can
//! be tested anywhere. See docs/lab.md.
//!
//! It owns the outer machine and what goes in and out. It knows nothing of what the command does, and never runs it twice unless the machine froze,
//! did not come up, or the command asked for a power cut or a reboot.

mod attempt;
mod files;
mod host;
mod ingredients;
mod interrupt;
mod machine;
mod ports;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::workspace::Workspace;
use attempt::{Attempt, Ending};
use files::Job;
use ingredients::Ingredients;
use machine::{Hardware, RootDisk};

/// What `cargo xtask lab` ends with when the lab failed, not the command, as `docker run` and `env` do.
pub(crate) const OWN_FAILURE: u8 = 125;
/// As timeout(1).
const DEADLINE_PASSED: u8 = 124;
/// As a shell tells SIGINT.
const INTERRUPTED: u8 = 130;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Run the command on this host, which has KVM itself.
    #[arg(long)]
    direct: bool,
    /// Memory of the outer machine in MiB; it takes what is used.
    #[arg(long, default_value_t = 4096)]
    memory: u32,
    /// CPUs of the outer machine. With more than one its guests die soon: decision 69.
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// How long the command may take, booting and repetitions included, in seconds.
    #[arg(long, default_value_t = 1200)]
    deadline: u64,
    /// How often the machine may freeze or fail to come up before the lab gives up.
    #[arg(long, default_value_t = 3)]
    attempts: u32,
    /// NAME=VALUE in the command's environment, or NAME for its value here.
    #[arg(long = "env", value_name = "NAME[=VALUE]")]
    environment: Vec<String>,
    /// A file or directory below the target directory to bring along. Programs in target/release and target/<triple>/release are there anyway.
    #[arg(long = "with", value_name = "PATH")]
    with: Vec<PathBuf>,
    /// Receives what the command leaves in $EMBERBOX_LAB_OUT. Default: lab/out in the target directory.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Make the lab's root anew even if the recipe is unchanged: brings Debian's updates.
    #[arg(long)]
    rebuild: bool,
    /// Keep the machine's console log in the target directory, lab/console.log, whatever happens.
    #[arg(long)]
    console: bool,
    /// The command. Paths below the checkout or the target directory are translated.
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::find();
    if arguments.direct {
        return run_here(&arguments, &workspace);
    }
    if host::has_kvm() {
        eprintln!("lab: this host has hardware virtualization: `cargo xtask lab --direct` runs the same command here, many times faster");
    }
    let interrupts = interrupt::catch().context("catching signals")?;
    let lab = workspace.target.join("lab");
    let ingredients = Ingredients::ensure(&workspace, &lab, arguments.rebuild)?;
    let scratch = tempfile::Builder::new().prefix("run-").tempdir_in(&lab).context("making a directory for this run")?;
    let job = Job::new(&workspace, &arguments.command, &arguments.environment, &arguments.with)?;
    let root = RootDisk::above(&ingredients.root, scratch.path())?;
    let out = arguments.out.clone().unwrap_or_else(|| lab.join("out"));
    let deadline = Instant::now() + Duration::from_secs(arguments.deadline);

    let (mut failures, mut boot) = (0, 1);
    loop {
        let disk = job.disk(&workspace, scratch.path(), boot)?;
        let hardware =
            Hardware { ingredients: &ingredients, root: &root, files: &disk, memory_mib: arguments.memory, cpus: arguments.cpus };
        let ending = Attempt { hardware, scratch: scratch.path(), out: &out, deadline, interrupts: &interrupts }.run();
        if arguments.console {
            std::fs::copy(machine::console_log(scratch.path()), lab.join("console.log")).context("keeping the console log")?;
        }
        match ending? {
            Ending::Exited(status) => return Ok(ExitCode::from(status)),
            Ending::Cut | Ending::Reboot => boot += 1,
            Ending::DeadlinePassed => {
                eprintln!("lab: not done within {} s", arguments.deadline);
                return Ok(ExitCode::from(DEADLINE_PASSED));
            }
            Ending::Interrupted => return Ok(ExitCode::from(INTERRUPTED)),
            Ending::Lost { how } => {
                failures += 1;
                eprintln!("lab: {how} (attempt {failures} of {})\n{}", arguments.attempts, machine::last_console_lines(scratch.path()));
                if failures >= arguments.attempts {
                    bail!("the outer machine failed {failures} times");
                }
                eprintln!("lab: starting over: what the command printed so far is void");
                root.reset()?;
                boot = 1;
            }
        }
    }
}

/// The same command with the same variables on this host.
fn run_here(arguments: &Arguments, workspace: &Workspace) -> anyhow::Result<ExitCode> {
    if !host::has_kvm() {
        bail!("--direct needs a CPU with vmx or svm and a /dev/kvm that opens; without it the lab emulates one");
    }
    let out = arguments.out.clone().unwrap_or_else(|| workspace.target.join("lab/out"));
    std::fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
    let (program, rest) = arguments.command.split_first().context("no command")?;
    let mut command = Command::new(program);
    command
        .args(rest)
        .current_dir(&workspace.root)
        .env("EMBERBOX_LAB", "direct")
        .env("EMBERBOX_LAB_BOOT", "1")
        .env("EMBERBOX_LAB_OUT", out);
    command.env("EMBERBOX_PYTHON", workspace.python()).env("EMBERBOX_BASE", &workspace.base).env("CARGO_TARGET_DIR", &workspace.target);
    for variable in &arguments.environment {
        if let Some((name, value)) = variable.split_once('=') {
            command.env(name, value);
        }
    }
    let status = command.status().with_context(|| format!("running {}", program.display()))?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(OWN_FAILURE)))
}
