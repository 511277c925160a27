//! Many clients at once, and a host that fails at random: no overlap of host calls, no MicroVM stuck, nothing left behind.

use std::time::Duration;

use emberbox_host::HostError;
use emberbox_wire::error::ErrorCode;
use emberbox_wire::ids::MicrovmId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use super::World;
use crate::testing::HostCall;
use crate::traffic::Traffic;

const CLIENTS: u64 = 8;
const STEPS: u32 = 40;

async fn step(world: &World, id: MicrovmId, random: &mut StdRng) {
    let operation = match random.random_range(0..20) {
        0..6 => "SuspendMicrovm",
        6..12 => "ResumeMicrovm",
        12 => "TerminateMicrovm",
        13 => {
            let call = [HostCall::Suspend, HostCall::Resume][random.random_range(0..2)];
            world.parts.host.fail(call, || HostError::DiskFull);
            return;
        }
        14 => return world.parts.clock.advance(Duration::from_secs(30)),
        15..18 => return drop(world.control.connect(id, 80).await),
        _ => return tokio::time::sleep(Duration::from_millis(1)).await,
    };
    if let Err(error) = world.call(operation, json!({"microvmIdentifier": id})).await {
        assert_eq!(error.code, ErrorCode::Conflict, "{operation}: {error}");
    }
}

async fn storm(seed: u64) {
    let world = World::with_image().await;
    let policy = json!({"idlePolicy": {"maxIdleDurationSeconds": 60, "suspendedDurationSeconds": 90, "autoResumeEnabled": true}});
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(world.run(policy.clone()).await);
    }
    let clients = (0..CLIENTS).map(|client| {
        let (world, ids) = (&world, &ids);
        async move {
            let mut random = StdRng::seed_from_u64(seed * CLIENTS + client);
            for _ in 0..STEPS {
                let id = ids[random.random_range(0..ids.len())];
                step(world, id, &mut random).await;
            }
        }
    });
    futures::future::join_all(clients).await;
    for id in ids {
        world.change("TerminateMicrovm", id).await;
        world.state(id, "TERMINATED").await;
        assert_eq!(world.parts.host.status(World::machine(id)), None, "seed {seed}");
    }
    assert_eq!(world.parts.host.overlaps(), 0, "seed {seed}");
    assert!(world.control.core().microvms.all().is_empty(), "seed {seed}");
}

#[tokio::test]
async fn a_storm_of_clients_leaves_nothing_behind() {
    for seed in 0..6 {
        storm(seed).await;
    }
}
