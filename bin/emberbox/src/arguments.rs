//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) const DEFAULT_DATA: &str = "/var/lib/emberbox";

/// Self-hosted AWS Lambda MicroVMs: the same API, on a machine of your own.
#[derive(Debug, Parser)]
#[command(name = "emberbox", version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run the daemon: the AWS API, the endpoints of MicroVMs, and the MicroVMs themselves.
    Serve(Serve),
    /// Print what a shell needs to use this daemon with any AWS tool: eval "$(emberbox env)".
    Env(Data),
    /// Add or list accounts. Their users, roles and policies are made with any IAM client.
    #[command(subcommand)]
    Account(Account),
    /// Print what image builds wrote: without a group the groups, without a stream the group's streams.
    Logs(Logs),
    /// Print the audit log: who called what, from where, with which outcome, as CloudTrail-shaped JSON lines.
    Audit(Audit),
    /// Check records, files and processes against each other, and repair.
    Doctor(Doctor),
    /// Print what happened to MicroVMs, builds and the daemon, and why, as JSON lines.
    Events(Events),
    /// Copy the disk of a MicroVM that died, while it is kept (retention.lost_disk_seconds), into a file that tools for ext4 read.
    Salvage(Salvage),
    /// Print the names of the failpoints; see docs/decisions/0040-failpoints-in-every-build.md.
    #[command(hide = true)]
    Failpoints,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Data {
    /// Where the daemon keeps everything.
    #[arg(long, env = "EMBERBOX_DATA", default_value = DEFAULT_DATA)]
    pub data: PathBuf,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Account {
    /// Add an account and print its root's access key, this once. The daemon may be running.
    Add {
        #[command(flatten)]
        data: Data,
        /// Twelve digits.
        account: String,
    },
    /// List the accounts.
    List {
        #[command(flatten)]
        data: Data,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub data: Data,
    /// Configuration file (TOML); see docs/configuration.md. What is given here overrides it.
    #[arg(long, env = "EMBERBOX_CONFIG")]
    pub config: Option<PathBuf>,
    /// The managed base that guest/build made.
    #[arg(long, env = "EMBERBOX_BASE")]
    pub base: Option<PathBuf>,
    /// Address of the AWS API; port 0 takes a free one.
    #[arg(long)]
    pub listen: Option<SocketAddr>,
    /// Port of the MicroVMs' HTTPS endpoints; 0 takes a free one.
    #[arg(long)]
    pub ingress_port: Option<u16>,
    /// Start although the records' journal is damaged, without the records that are lost with it. The damaged journal is kept beside.
    #[arg(long)]
    pub accept_lost_records: bool,
    /// Form of the log on standard error.
    #[arg(long, value_enum, default_value_t = LogForm::Text)]
    pub log: LogForm,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Logs {
    #[command(flatten)]
    pub data: Data,
    /// Log group, such as /aws/lambda-microvms/my-image.
    pub group: Option<String>,
    /// Log stream of the group.
    pub stream: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Audit {
    #[command(flatten)]
    pub data: Data,
    /// Go on with what is written from now on.
    #[arg(long, short)]
    pub follow: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub data: Data,
    /// The daemon's configuration file.
    #[arg(long, env = "EMBERBOX_CONFIG")]
    pub config: Option<PathBuf>,
    /// Read every byte of every snapshot and hold it against its checksums.
    #[arg(long)]
    pub thorough: bool,
    /// Put right what can be; the daemon must not run.
    #[arg(long)]
    pub repair: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Salvage {
    #[command(flatten)]
    pub data: Data,
    /// The id of the MicroVM.
    pub microvm: String,
    /// A new file for the disk's ext4 file system; holes take no space.
    #[arg(long)]
    pub to: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Events {
    #[command(flatten)]
    pub data: Data,
    /// Go on with what happens.
    #[arg(long, short)]
    pub follow: bool,
    /// Only what is about this: the id of a MicroVM or a build, the ARN of an image.
    pub about: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogForm {
    Text,
    Json,
}
