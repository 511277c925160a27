//! What is armed, as text: `name=action` separated by `;` or new lines. Actions: `error`, `panic`, `kill`, `hang`, `delay(<milliseconds>)`.

use std::time::Duration;

use crate::{Action, Failpoint};

/// Why nothing was armed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArmError {
    #[error("{0:?} is not <failpoint>=<action>")]
    Malformed(String),
    #[error("there is no failpoint {0:?}")]
    Unknown(String),
    #[error("{0:?} is not error, panic, kill, hang or delay(<milliseconds>)")]
    NoAction(String),
}

/// Arms what `text` says and disarms everything else; all of it or nothing.
pub fn arm(known: &[&'static Failpoint], text: &str) -> Result<(), ArmError> {
    let mut armed = Vec::new();
    for part in text.split([';', '\n']).map(str::trim).filter(|part| !part.is_empty()) {
        let (name, action) = part.split_once('=').ok_or_else(|| ArmError::Malformed(part.to_owned()))?;
        let point = known.iter().find(|point| point.name == name.trim()).ok_or_else(|| ArmError::Unknown(name.to_owned()))?;
        armed.push((*point, parse(action.trim())?));
    }
    disarm_all(known);
    for (point, action) in armed {
        point.set(Some(action));
    }
    Ok(())
}

pub fn disarm_all(known: &[&'static Failpoint]) {
    for point in known {
        point.set(None);
    }
}

fn parse(text: &str) -> Result<Action, ArmError> {
    let delay = || text.strip_prefix("delay(")?.strip_suffix(')')?.parse().ok().map(Duration::from_millis);
    match text {
        "error" => Ok(Action::Error),
        "panic" => Ok(Action::Panic),
        "kill" => Ok(Action::Kill),
        "hang" => Ok(Action::Hang),
        _ => delay().map(Action::Delay).ok_or_else(|| ArmError::NoAction(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Injected;

    mod points {
        crate::declare! {
            ONE = "test.one";
            TWO = "test.two";
        }
    }

    #[tokio::test]
    async fn an_armed_point_goes_off_once_and_the_others_not_at_all() {
        assert_eq!(arm(points::ALL, "test.one=nonsense"), Err(ArmError::NoAction("nonsense".into())));
        assert_eq!(arm(points::ALL, "test.three=error"), Err(ArmError::Unknown("test.three".into())));
        assert!(points::ALL.iter().all(|point| !point.is_armed()));
        arm(points::ALL, "test.one=error; test.two=delay(1)\n").unwrap();
        assert_eq!(points::ONE.pass().await, Err(Injected { name: "test.one" }));
        assert_eq!(points::ONE.pass().await, Ok(()));
        assert_eq!(points::TWO.pass_blocking(), Ok(()));
        arm(points::ALL, "test.one=panic").unwrap();
        let panicked = std::thread::spawn(|| points::ONE.pass_blocking()).join();
        assert!(panicked.is_err());
        arm(points::ALL, "test.two=hang").unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(20), points::TWO.reach()).await.is_err());
        arm(points::ALL, "test.one=error").unwrap();
        disarm_all(points::ALL);
        assert_eq!(points::ONE.pass().await, Ok(()));
    }
}
