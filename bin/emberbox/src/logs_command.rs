//! `emberbox logs`: what image builds wrote.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};

use crate::arguments::Logs;
use crate::build_logs::{encode, names};
use crate::serve::LOGS;

pub(crate) fn run(arguments: Logs) -> anyhow::Result<()> {
    let root = arguments.data.data.join(LOGS);
    let accounts = names(&root).with_context(|| format!("no logs in {}: has a daemon run with this --data?", root.display()))?;
    let mut found = false;
    for account in accounts {
        let account = root.join(encode(&account));
        found |= match (&arguments.group, &arguments.stream) {
            (None, _) => print_names(&account)?,
            (Some(group), None) => print_names(&account.join(encode(group)))?,
            (Some(group), Some(stream)) => print_stream(&account.join(encode(group)).join(encode(stream)))?,
        };
    }
    match (found, arguments.group) {
        (true, _) => Ok(()),
        (false, None) => bail!("nothing has been logged yet"),
        (false, Some(group)) => bail!("no such log: `emberbox logs` lists the groups, `emberbox logs {group}` the streams of one"),
    }
}

fn print_names(directory: &Path) -> anyhow::Result<bool> {
    let Ok(names) = names(directory) else { return Ok(false) };
    names.iter().for_each(|name| println!("{name}"));
    Ok(!names.is_empty())
}

fn print_stream(path: &Path) -> anyhow::Result<bool> {
    let Ok(text) = std::fs::read(path) else { return Ok(false) };
    std::io::stdout().write_all(&text)?;
    Ok(true)
}
