//! One request to a monitor and its answer.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use emberbox_vmm::control::{Answer, Call, GENERATION, MAX_LINE_BYTES, Request};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::StepTimings;
use crate::engine::{EngineError, channel};

/// A monitor answers within milliseconds. On a host out of breath, or with a slow disk to hand a guest's writes to, it may take long.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const CHUNK: usize = 4096;

/// The monitor serves the guest, so its answer is taken as if the guest had written it: bounded, and an error when it is not what was asked for.
pub(super) async fn ask(
    stream: &UnixStream,
    command: &'static str,
    request: Request,
    fds: &[BorrowedFd<'_>],
) -> Result<StepTimings, EngineError> {
    let exchange = async {
        let mut line = serde_json::to_vec(&Call { generation: GENERATION, request })?;
        line.push(b'\n');
        channel::send(stream, &line, fds).await?;
        answer(stream).await
    };
    let answer = timeout(ANSWER_WITHIN, exchange).await.map_err(|_| EngineError::TimedOut { attempted: "answer" })?;
    match answer.map_err(EngineError::Control)? {
        Answer::Done { steps } => {
            Ok(StepTimings(steps.into_iter().map(|(name, us)| (format!("monitor.{name}"), Duration::from_micros(us))).collect()))
        }
        Answer::Failed { reason } => Err(EngineError::Refused { command: command.into(), message: reason }),
        Answer::Stats(_) => Err(EngineError::Control(io::Error::other("the monitor answered out of turn"))),
    }
}

async fn answer(stream: &UnixStream) -> io::Result<Answer> {
    let (mut line, mut chunk) = (Vec::new(), [0; CHUNK]);
    loop {
        stream.readable().await?;
        match stream.try_read(&mut chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => line.extend_from_slice(&chunk[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        if line.len() > MAX_LINE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the monitor's answer is too long"));
        }
        if let Some(line) = line.strip_suffix(b"\n") {
            return Ok(serde_json::from_slice(line)?);
        }
    }
}
