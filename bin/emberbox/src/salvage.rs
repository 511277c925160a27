//! `emberbox salvage`: the disk of a MicroVM that died, as a file.

use anyhow::{Context, ensure};
use emberbox_host::{MachineId, salvage};
use emberbox_wire::ids::MicrovmId;

use crate::arguments::Salvage;
use crate::serve::HOST;

pub(crate) fn run(arguments: &Salvage) -> anyhow::Result<()> {
    let id: MicrovmId = arguments.microvm.parse().ok().with_context(|| format!("{} is no id of a MicroVM", arguments.microvm))?;
    ensure!(!arguments.to.exists(), "{} exists: name a new file", arguments.to.display());
    salvage::copy_disk(&arguments.data.data.join(HOST), MachineId(id.0), &arguments.to)
        .with_context(|| format!("the disk of {id} cannot be copied"))?;
    println!("{}", arguments.to.display());
    Ok(())
}
