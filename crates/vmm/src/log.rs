//! What the monitor says on its standard error, which the daemon keeps the last of. Nothing of a guest's memory is ever printed.

/// A driver has broken the rules. Said once a reset: a guest cannot flood its log.
pub(crate) fn device_stopped(kind: u32, fault: &dyn std::error::Error) {
    say(&format!("device of kind {kind} stopped: {}", with_causes(fault)));
}

pub(crate) fn say(text: &str) {
    // Nobody may be listening.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("emberbox-vmm: {text}\n").as_bytes());
}

/// An error and what caused it, on one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
