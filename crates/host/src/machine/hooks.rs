//! Lifecycle hooks of the application: paths, bodies, and what their outcomes mean (documented by AWS).

use std::time::Duration;

use emberbox_agent_protocol::{Hook, HookOutcome, HookRetry, Reply, Request};
use serde_json::json;

use crate::agent::{AgentError, AgentLink};
use crate::engine::EngineError;
use crate::{HookCall, HostError};

const ROOT: &str = "/aws/lambda-microvms/runtime/v1";
const OK: u16 = 200;
/// The agent keeps the hook's own deadline; this is for an agent that does not answer at all.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HookName {
    Ready,
    Validate,
    Run,
    Resume,
    Suspend,
    Terminate,
}

impl HookName {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Validate => "validate",
            Self::Run => "run",
            Self::Resume => "resume",
            Self::Suspend => "suspend",
            Self::Terminate => "terminate",
        }
    }

    fn retry(self) -> HookRetry {
        match self {
            Self::Ready | Self::Validate => HookRetry::UntilReady,
            Self::Run | Self::Resume | Self::Suspend | Self::Terminate => HookRetry::Never,
        }
    }

    /// The hook as the agent is asked to call it.
    pub(crate) fn request(self, call: &HookCall, body: String) -> Hook {
        Hook {
            port: call.port,
            path: format!("{ROOT}/{}", self.as_str()),
            body,
            timeout_ms: u64::try_from(call.timeout.as_millis()).unwrap_or(u64::MAX),
            retry: self.retry(),
        }
    }

    /// Anything but 200 is a failure.
    pub(crate) fn check(self, call: &HookCall, outcome: HookOutcome) -> Result<(), HostError> {
        match outcome {
            HookOutcome::Answered { status: OK, .. } => Ok(()),
            outcome => Err(HostError::Hook { hook: self.as_str(), outcome, timeout: call.timeout }),
        }
    }

    /// Calls the hook now.
    pub(crate) async fn call(self, agent: &AgentLink, call: &HookCall) -> Result<(), HostError> {
        let request = Request::CallHook(self.request(call, String::new()));
        match agent.ask(request, call.timeout + GRACE).await? {
            Reply::Hook(outcome) => self.check(call, outcome),
            _ => Err(AgentError::Unexpected.into()),
        }
    }
}

/// The body of `/run` (documented).
pub(crate) fn run_body(microvm: &str, payload: Option<&str>) -> String {
    match payload {
        Some(payload) => json!({"microvmId": microvm, "runHookPayload": payload}),
        None => json!({"microvmId": microvm}),
    }
    .to_string()
}

impl From<AgentError> for HostError {
    fn from(error: AgentError) -> Self {
        match error {
            AgentError::Ended(end) => EngineError::Ended(end).into(),
            error => Self::internal("talk to the agent in the guest")(error),
        }
    }
}
