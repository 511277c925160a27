//! The messages. Times are milliseconds unless a name says otherwise.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The first line of every connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Call {
    /// [`crate::GENERATION`] of the caller. The agent answers [`Reply::Failed`] to one it does not speak.
    pub generation: u32,
    pub request: Request,
}

/// What the host asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Is the agent up? Answer: [`Reply::Done`].
    Ping,
    /// Mount `disk` and start the application in it as a container. Answer: [`Reply::Done`] once the process has been executed.
    StartApplication(Application),
    /// Call one lifecycle hook of the application over loopback. Answer: [`Reply::Hook`].
    CallHook(Hook),
    /// Connect to a port of the application on loopback. Answer: [`Reply::Connected`], then raw bytes both ways with TCP half-close
    /// carried across; or [`Reply::Refused`] when nothing listens.
    Relay { port: u16 },
    /// Freeze the application's cgroup, wait until it is frozen, sync the disks, abort its TCP connections to the outside. Answer: [`Reply::Done`]; the
    /// snapshot follows.
    Freeze,
    /// Undo a [`Request::Freeze`] that led to no snapshot. Answer: [`Reply::Done`].
    Thaw,
    /// The machine was just restored from a snapshot. In this order: set the clock, mix in the entropy and reseed, set the identity, drop
    /// connections from before the snapshot, thaw, call the hook if there is one. Answer: [`Reply::Restored`].
    Restored(Restored),
    /// Run one command in a root disk, as the builder does. Answers: [`Reply::Log`] lines as they come, then [`Reply::Exited`].
    Run(Command),
    /// The application's output after sequence number `after`, then more as it comes. Answers: [`Reply::Log`] without end; when the
    /// application ends, [`Reply::Exited`] with its exit code.
    FollowLogs { after: u64 },
    /// Sync and power off. Answer: [`Reply::Done`] when synced.
    PowerOff,
}

/// A block device of the guest, named by its virtio serial, never by its order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    pub serial: String,
    pub read_only: bool,
}

/// The container an image describes: its root disk and the part of the OCI image configuration that says what to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    /// Serial of the ext4 disk that becomes `/`.
    pub root_disk: String,
    /// ENTRYPOINT followed by CMD.
    pub argv: Vec<String>,
    /// ENV of the Dockerfile overlaid with the image's environment variables.
    pub environment: BTreeMap<String, String>,
    /// WORKDIR; `/` when empty.
    pub working_directory: String,
    /// USER in OCI syntax: `name`, `uid`, `name:group`, `uid:gid` or empty for root; names are looked up in the root disk.
    pub user: String,
    pub capabilities: Capabilities,
    pub host_name: String,
    /// PEM certificates to trust beside the system's own (for hosts behind a proxy that re-signs HTTPS); empty for none.
    pub extra_ca_pem: String,
}

/// What root may do inside the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capabilities {
    /// The set container engines grant by default.
    Restricted,
    /// `additionalOsCapabilities: ["ALL"]`: every capability, all devices, writable /sys and cgroup.
    All,
}

/// One lifecycle hook: `POST http://localhost:<port><path>` with a JSON body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    pub port: u16,
    pub path: String,
    /// The body as it goes over the wire; empty for none. May hold a caller's secret: never logged.
    pub body: String,
    /// Over the whole call, retries included.
    pub timeout_ms: u64,
    pub retry: HookRetry,
}

/// Which failures a hook may get over within its timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookRetry {
    /// One call, as on `/run`, `/suspend`, `/resume`, `/terminate`.
    Never,
    /// `/ready` and `/validate`: poll while nothing listens yet or the answer is 503.
    UntilReady,
}

/// How a hook ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookOutcome {
    /// The application answered with this HTTP status. `body` is the start of the answer's text, at most 1 KiB.
    Answered {
        status: u16,
        body: String,
    },
    TimedOut,
    /// Nothing listened on the port, or the connection broke.
    Unreachable {
        reason: String,
    },
    /// The application's process ended while the hook waited.
    ApplicationExited {
        code: i32,
    },
}

/// Who this copy of the snapshot is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub microvm_id: String,
    pub host_name: String,
    /// What `/proc/sys/kernel/random/boot_id` and `/etc/machine-id` say from now on: a UUID in its usual form.
    pub boot_id: String,
}

/// Everything a restored guest needs before its application may run again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Restored {
    /// The host's wall clock when it sent this, nanoseconds since the Unix epoch. The agent adds the time that this has waited in the guest.
    pub wall_clock_ns: u64,
    /// 64 fresh random bytes, base64.
    pub entropy: String,
    /// Absent when a MicroVM wakes: it stays who it was.
    pub identity: Option<Identity>,
    pub hook: Option<Hook>,
}

/// One command in a builder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Serial of the disk whose root file system the command runs in. Mounted on first use, with /proc, /sys, /dev, /dev/pts,
    /// /dev/shm, /run, /tmp and cgroup as a container engine needs them, and /etc/resolv.conf pointing at the DNS stub.
    pub root_disk: String,
    /// Further disks by serial with the directory (absolute, inside the root) they are mounted on.
    pub mounts: BTreeMap<String, Disk>,
    pub argv: Vec<String>,
    pub environment: BTreeMap<String, String>,
    pub working_directory: String,
    /// Killed when it runs longer.
    pub timeout_ms: u64,
    /// Written to these absolute paths inside the root before the command starts (mode 0600).
    pub files: BTreeMap<String, String>,
}

/// What the agent answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Done,
    Connected,
    Refused {
        reason: String,
    },
    Hook(HookOutcome),
    /// `outcome` is that of the hook, if there was one. What the guest did between the request's arrival and this answer took `handled_us` microseconds: the
    /// rest of the exchange is the most that the guest's clock can be late.
    Restored {
        outcome: Option<HookOutcome>,
        handled_us: u64,
    },
    Log(LogLine),
    Exited {
        code: i32,
    },
    /// The request could not be carried out; the text is for an operator.
    Failed {
        reason: String,
    },
}

/// One line of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Counts from 1 over the life of the guest, snapshots included.
    pub sequence: u64,
    /// The guest's wall clock.
    pub unix_ms: u64,
    pub stream: LogStream,
    /// Without its line end; invalid UTF-8 replaced; cut at 64 KiB.
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    Stdout,
    Stderr,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The wire form is a contract with every snapshot on disk: a change here needs a new generation.
    #[test]
    fn wire_form_of_generation_2() {
        let call = Call { generation: 2, request: Request::Relay { port: 8080 } };
        assert_eq!(serde_json::to_string(&call).unwrap(), r#"{"generation":2,"request":{"relay":{"port":8080}}}"#);
        let reply = Reply::Hook(HookOutcome::Answered { status: 200, body: String::new() });
        assert_eq!(serde_json::to_string(&reply).unwrap(), r#"{"hook":{"answered":{"status":200,"body":""}}}"#);
        let reply = Reply::Restored { outcome: None, handled_us: 5 };
        assert_eq!(serde_json::to_string(&reply).unwrap(), r#"{"restored":{"outcome":null,"handled_us":5}}"#);
        assert_eq!(serde_json::to_string(&Request::Freeze).unwrap(), r#""freeze""#);
    }
}
