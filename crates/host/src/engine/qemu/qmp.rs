//! QEMU's control protocol (QMP): JSON lines over a private socket. One connection per errand, so that a restarted daemon is no special case.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::engine::{EngineError, channel};

/// QEMU answers within milliseconds; on a host out of breath it may take seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// No answer or event is longer.
const MAX_LINE: u64 = 1024 * 1024;
/// How often the progress of a migration is asked for.
const POLL: Duration = Duration::from_millis(2);

pub(super) struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects to the socket in `directory`. QEMU need not have come up: what is sent waits for it.
    pub(super) async fn connect(directory: &Path, name: &str) -> Result<Self, EngineError> {
        let stream = channel::connect(directory, name).await.map_err(EngineError::Control)?;
        let mut this = Self { stream: BufReader::new(stream) };
        this.send("qmp_capabilities", json!({})).await?;
        Ok(this)
    }

    /// Commands in one go; returns when all have been answered.
    pub(super) async fn run(&mut self, commands: &[(&str, Value)]) -> Result<(), EngineError> {
        for (command, arguments) in commands {
            self.send(command, arguments.clone()).await?;
        }
        // The first answer is that of the handshake.
        for command in ["qmp_capabilities"].into_iter().chain(commands.iter().map(|(command, _)| *command)) {
            self.answer(command).await?;
        }
        Ok(())
    }

    /// One command, after the handshake has been answered.
    pub(super) async fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, EngineError> {
        self.send(command, arguments).await?;
        self.answer(command).await
    }

    /// Hands over a descriptor under a name.
    pub(super) async fn give(&mut self, name: &str, fd: BorrowedFd<'_>) -> Result<(), EngineError> {
        let mut line = json!({"execute": "getfd", "arguments": {"fdname": name}}).to_string();
        line.push('\n');
        channel::send(self.stream.get_ref(), line.as_bytes(), &[fd]).await.map_err(EngineError::Control)?;
        self.answer("getfd").await.map(|_| ())
    }

    /// Waits for a migration, out or in, to end.
    pub(super) async fn migration_ended(&mut self) -> Result<(), EngineError> {
        let wait = async {
            loop {
                let status = self.execute("query-migrate", json!({})).await?;
                match status["status"].as_str() {
                    Some("completed") => return Ok(()),
                    Some("failed" | "cancelled") => {
                        let message = status["error-desc"].as_str().unwrap_or("no reason given").to_owned();
                        return Err(EngineError::Refused { command: "migrate".into(), message });
                    }
                    _ => tokio::time::sleep(POLL).await,
                }
            }
        };
        timeout(ANSWER_WITHIN, wait).await.map_err(|_| EngineError::TimedOut { attempted: "move its state" })?
    }

    async fn send(&mut self, command: &str, arguments: Value) -> Result<(), EngineError> {
        let mut line = json!({"execute": command, "arguments": arguments}).to_string();
        line.push('\n');
        self.stream.get_mut().write_all(line.as_bytes()).await.map_err(EngineError::Control)
    }

    /// The next answer; greetings and events are passed over.
    async fn answer(&mut self, command: &str) -> Result<Value, EngineError> {
        let read = async {
            loop {
                let mut message = self.line().await.map_err(EngineError::Control)?;
                if let Some(error) = message.get("error") {
                    let message = error["desc"].as_str().unwrap_or_default().to_owned();
                    return Err(EngineError::Refused { command: command.into(), message });
                }
                if let Some(answer) = message.get_mut("return") {
                    return Ok(answer.take());
                }
            }
        };
        timeout(ANSWER_WITHIN, read).await.map_err(|_| EngineError::TimedOut { attempted: "answer" })?
    }

    async fn line(&mut self) -> io::Result<Value> {
        let mut line = Vec::new();
        (&mut self.stream).take(MAX_LINE).read_until(b'\n', &mut line).await?;
        match line.is_empty() {
            true => Err(io::ErrorKind::UnexpectedEof.into()),
            false => Ok(serde_json::from_slice(&line)?),
        }
    }
}
