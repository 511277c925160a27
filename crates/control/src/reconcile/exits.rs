//! Machines whose process ended unasked.

use std::sync::Arc;

use emberbox_host::{MachineExit, MachineStatus};
use emberbox_store::Phase;
use emberbox_wire::ids::MicrovmId;
use tokio::sync::broadcast;

use crate::control::Core;
use crate::microvm::registry::Request;

pub(crate) async fn follow(core: Arc<Core>, mut exits: broadcast::Receiver<MachineExit>) {
    loop {
        tokio::select! {
            () = core.stop.cancelled() => break,
            exit = exits.recv() => match exit {
                Ok(exit) => report(&core, MicrovmId(exit.machine.0), exit.end.to_string()),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "ends of machines were missed; asking the host");
                    look(&core).await;
                }
                Err(broadcast::error::RecvError::Closed) => break,
            },
        }
    }
}

fn report(core: &Core, id: MicrovmId, reason: String) {
    if let Some(handle) = core.microvms.get(id) {
        tracing::warn!(microvm = %id, reason, "the machine ended unasked");
        handle.tell(Request::Exited { reason: format!("The MicroVM ended unexpectedly: {reason}") });
    }
}

/// Asks the host for what the broadcast could not hold.
async fn look(core: &Core) {
    let machines = match core.host.inventory().await {
        Ok(machines) => machines,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the host could not say what it runs");
            return;
        }
    };
    for handle in core.microvms.all() {
        let runs = machines.iter().any(|machine| machine.machine == handle.machine() && machine.status == MachineStatus::Running);
        if handle.view().phase == Phase::Running && !runs {
            report(core, handle.id, "its machine is gone".into());
        }
    }
}
