//! `emberbox events`: what happened to MicroVMs, builds and the daemon, and, when asked to follow, what happens.

use anyhow::Context;

use super::NAME;
use crate::arguments::Events;
use crate::json_lines;
use crate::serve::EVENTS;

pub(crate) fn run(arguments: Events) -> anyhow::Result<()> {
    let directory = arguments.data.data.join(EVENTS);
    // An id is long and random: a line that holds it is about it.
    let wanted = |line: &[u8]| match &arguments.about {
        Some(text) => String::from_utf8_lossy(line).contains(text),
        None => true,
    };
    json_lines::print(&directory, NAME, arguments.follow, wanted)
        .with_context(|| format!("no events in {}: has a daemon run with this --data?", directory.display()))
}
