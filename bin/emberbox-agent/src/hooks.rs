//! Lifecycle hooks: one call, or calls until the application is ready, within one deadline.

use std::io;
use std::time::Duration;

use emberbox_agent_protocol::{Hook, HookOutcome, HookRetry};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use crate::http;
use crate::reaper::{ExitCode, exited};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// How long after a broken connection the news of the process's end may take.
const EXIT_NEWS: Duration = Duration::from_millis(100);
/// 503 is the documented "not yet" of `/ready` and `/validate`.
const NOT_YET: u16 = 503;

/// Calls the hook of the application whose end `process` tells.
pub(crate) async fn call(hook: &Hook, process: Option<ExitCode>) -> HookOutcome {
    if let Some(code) = process.as_ref().and_then(|process| *process.borrow()) {
        return HookOutcome::ApplicationExited { code };
    }
    let deadline = Instant::now() + Duration::from_millis(hook.timeout_ms);
    let outcome = tokio::select! {
        biased;
        outcome = attempts(hook, deadline) => outcome,
        code = exited(process.clone()) => return HookOutcome::ApplicationExited { code },
    };
    match outcome {
        HookOutcome::Unreachable { .. } => match timeout(EXIT_NEWS, exited(process)).await {
            Ok(code) => HookOutcome::ApplicationExited { code },
            Err(_) => outcome,
        },
        outcome => outcome,
    }
}

async fn attempts(hook: &Hook, deadline: Instant) -> HookOutcome {
    let retry = hook.retry == HookRetry::UntilReady;
    let mut pause = FIRST_PAUSE;
    loop {
        match timeout_at(deadline, http::post(hook)).await {
            Err(_) => return HookOutcome::TimedOut,
            Ok(Ok(answer)) if retry && answer.status == NOT_YET => {}
            Ok(Ok(answer)) => return HookOutcome::Answered { status: answer.status, body: answer.body },
            Ok(Err(error)) if retry && may_pass(&error) => {}
            Ok(Err(error)) => return HookOutcome::Unreachable { reason: reason(hook.port, &error) },
        }
        if Instant::now() + pause >= deadline {
            sleep_until(deadline).await;
            return HookOutcome::TimedOut;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// A server that is starting refuses connections, or drops them; one that speaks something else will not change its mind.
fn may_pass(error: &io::Error) -> bool {
    error.kind() != io::ErrorKind::InvalidData
}

fn reason(port: u16, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("nothing listens on port {port}"),
        _ => format!("port {port}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn hook(port: u16, timeout_ms: u64, retry: HookRetry) -> Hook {
        Hook { port, path: "/aws/lambda-microvms/runtime/v1/ready".into(), body: "{}".into(), timeout_ms, retry }
    }

    /// Serves the given answers, one a connection, then closes; returns the port.
    async fn server(answers: Vec<&'static str>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 4096];
                let read = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..read]);
                assert!(request.starts_with("POST /aws/lambda-microvms/runtime/v1/ready HTTP/1.1\r\n"));
                assert!(request.contains(&format!("Host: localhost:{port}\r\n")));
                assert!(request.contains("Content-Type: application/json\r\nContent-Length: 2\r\n"));
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        port
    }

    const READY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const STARTING: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

    #[tokio::test]
    async fn ready_is_polled_through_503_and_broken_connections() {
        let port = server(vec![STARTING, "", STARTING, READY]).await;
        let outcome = call(&hook(port, 10_000, HookRetry::UntilReady), None).await;
        assert_eq!(outcome, HookOutcome::Answered { status: 200, body: "ok".into() });
    }

    #[tokio::test]
    async fn a_single_hook_is_not_repeated() {
        let port = server(vec![STARTING, READY]).await;
        let outcome = call(&hook(port, 10_000, HookRetry::Never), None).await;
        assert_eq!(outcome, HookOutcome::Answered { status: 503, body: String::new() });
    }

    #[tokio::test]
    async fn another_status_ends_the_polling() {
        let port = server(vec![STARTING, "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"]).await;
        let outcome = call(&hook(port, 10_000, HookRetry::UntilReady), None).await;
        assert_eq!(outcome, HookOutcome::Answered { status: 500, body: String::new() });
    }

    #[tokio::test]
    async fn silence_times_out_and_nobody_is_unreachable() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(call(&hook(port, 100, HookRetry::Never), None).await, HookOutcome::TimedOut);
        drop(listener);
        assert!(matches!(call(&hook(port, 100, HookRetry::Never), None).await, HookOutcome::Unreachable { .. }));
        assert_eq!(call(&hook(port, 100, HookRetry::UntilReady), None).await, HookOutcome::TimedOut);
    }

    #[tokio::test]
    async fn the_end_of_the_application_ends_the_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, process) = tokio::sync::watch::channel(None);
        tokio::spawn(async move {
            sleep(Duration::from_millis(50)).await;
            sender.send(Some(3)).unwrap();
            std::future::pending::<()>().await;
        });
        let hook = hook(port, 60_000, HookRetry::UntilReady);
        assert_eq!(call(&hook, Some(process.clone())).await, HookOutcome::ApplicationExited { code: 3 });
        assert_eq!(call(&hook, Some(process)).await, HookOutcome::ApplicationExited { code: 3 });
    }
}
