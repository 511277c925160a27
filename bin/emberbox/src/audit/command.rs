//! `emberbox audit`: prints the audit log, oldest first, and goes on with what is written when asked to follow.

use anyhow::Context;

use super::NAME;
use crate::arguments::Audit;
use crate::json_lines;
use crate::serve::AUDIT;

pub(crate) fn run(arguments: Audit) -> anyhow::Result<()> {
    let directory = arguments.data.data.join(AUDIT);
    json_lines::print(&directory, NAME, arguments.follow, |_| true)
        .with_context(|| format!("no audit log in {}: has a daemon run with this --data?", directory.display()))
}
