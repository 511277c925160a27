//! The lifecycle hooks, and what the environment makes of them.

use std::env;
use std::io::Read;

use crate::json::{Json, object};
use crate::sampler::unix_seconds;
use crate::server::Answer;
use crate::{Probe, lock};

pub(crate) const PREFIX: &str = "/aws/lambda-microvms/runtime/v1/";

const NAMES: [&str; 6] = ["ready", "validate", "run", "resume", "suspend", "terminate"];
/// Above what the service lets through.
const MAX_BODY_BYTES: u64 = 64 * 1024;

/// What a hook does, named by `PROBE_<HOOK>`.
#[derive(Debug, Clone, PartialEq)]
enum Behaviour {
    /// `ok`, `never` (503) or a status.
    Status(u16),
    /// `hang`: takes the call and never answers.
    Hang,
    /// `exit`: the process ends at start.
    Exit,
    /// `silent`: takes every connection and never answers anything.
    Silent,
}

/// One for each of [`NAMES`].
pub(crate) struct Behaviours([Behaviour; NAMES.len()]);

impl Behaviours {
    pub(crate) fn from_environment() -> Self {
        Self(NAMES.map(|name| behaviour(&env::var(format!("PROBE_{}", name.to_uppercase())).unwrap_or_default())))
    }

    pub(crate) fn exits_at_start(&self) -> bool {
        self.0.contains(&Behaviour::Exit)
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.0.contains(&Behaviour::Silent)
    }
}

/// An unknown word counts as a failure of the application, so that a misspelt test does not pass.
fn behaviour(word: &str) -> Behaviour {
    match word {
        "" | "ok" => Behaviour::Status(200),
        "never" => Behaviour::Status(503),
        "hang" => Behaviour::Hang,
        "exit" => Behaviour::Exit,
        "silent" => Behaviour::Silent,
        status => Behaviour::Status(status.parse().unwrap_or(599)),
    }
}

/// The hooks called so far.
#[derive(Default)]
pub(crate) struct HookLog(Vec<Call>);

struct Call {
    hook: &'static str,
    wall: f64,
    body: String,
}

impl HookLog {
    pub(crate) fn to_json(&self) -> Json {
        let calls = self
            .0
            .iter()
            .map(|call| object([("hook", call.hook.into()), ("wall", Json::Float(call.wall)), ("body", call.body.as_str().into())]));
        Json::List(calls.collect())
    }

    /// The body of the last `/run`.
    pub(crate) fn run_body(&self) -> Option<&str> {
        self.0.iter().rev().find(|call| call.hook == "run").map(|call| call.body.as_str())
    }
}

/// Notes the call and does as the environment says.
pub(crate) fn answer(probe: &Probe, hook: &str, body: &mut dyn Read) -> Answer {
    let Some(index) = NAMES.iter().position(|name| *name == hook) else {
        return Answer::failed(404, format!("no hook {hook:?}"));
    };
    let mut bytes = Vec::new();
    if let Err(error) = body.take(MAX_BODY_BYTES).read_to_end(&mut bytes) {
        return Answer::failed(400, error);
    }
    let body = String::from_utf8_lossy(&bytes).into_owned();
    lock(&probe.hooks).0.push(Call { hook: NAMES[index], wall: unix_seconds(), body });
    match probe.behaviours.0[index] {
        Behaviour::Status(200) => Answer::json([("hook", hook.into())]),
        Behaviour::Status(status) => Answer::failed(status, format!("{hook}: failing as asked")),
        Behaviour::Hang | Behaviour::Silent | Behaviour::Exit => Answer::Silence,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_environment() {
        assert_eq!(behaviour(""), Behaviour::Status(200));
        assert_eq!(behaviour("never"), Behaviour::Status(503));
        assert_eq!(behaviour("400"), Behaviour::Status(400));
        assert_eq!(behaviour("hang"), Behaviour::Hang);
        assert_eq!(behaviour("hnag"), Behaviour::Status(599));
    }
}
