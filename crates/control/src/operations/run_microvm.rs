//! RunMicrovm: a MicroVM is recorded as PENDING and answered; its task launches it.

use std::sync::Arc;

use emberbox_host::HostError;
use emberbox_store::{ClientToken, Commit, IdleSignal, MicrovmRecord, Phase, RunSettings, SteadyLife, VersionRecord};
use emberbox_wire::arn::ImageArn;
use emberbox_wire::caller::Caller;
use emberbox_wire::ids::{EndpointId, MicrovmId};
use emberbox_wire::microvms::{Hooks, ImageState, RunMicrovmRequest, VersionState, VersionStatus};
use serde_json::{Value, json};

use super::definition;
use crate::control::Core;
use crate::microvm::driver::{self, Start};
use crate::microvm::hooks::failure_reason;
use crate::reconcile::pressure;
use crate::refusal::{Failure, Refusal};
use crate::timings::Stopwatch;
use crate::{connectors, endpoint, failpoints, idempotency, idle, views};

/// How long a MicroVM may exist when the caller does not say (model).
const DEFAULT_MAXIMUM_DURATION_SECONDS: u32 = 28_800;
/// Tries to find an address nobody has: even with a million MicroVMs three quarters of the addresses are free.
const ADDRESS_ATTEMPTS: usize = 16;

pub(crate) async fn handle(core: &Arc<Core>, caller: &Caller, input: Value) -> Result<Value, Failure> {
    let mut clock = Stopwatch::start();
    let token = idempotency::client_token(core, caller, "RunMicrovm", &input);
    if let Some(answer) = idempotency::earlier_answer(core, token.as_ref()).await? {
        return Ok(answer);
    }
    let request: RunMicrovmRequest = serde_json::from_value(input)?;
    connectors::refuse_customers(core, caller, request.egress_network_connectors.as_deref()).await?;
    let (arn, settings) = admit(&core.config.region, &request)?;
    if let Some(role) = &settings.execution_role_arn {
        core.access.passable(&caller.account, role, &arn.to_string()).await?;
    }
    for _ in 0..ADDRESS_ATTEMPTS {
        let version = launchable(core, caller, &arn, &request).await?;
        room(core).await?;
        let signal = idle::signal(&core.store.tags(&arn.to_string()).await?, core.config.lives.idle_signal);
        let record = new_record(core, caller, &arn, &version, RunSettings { idle_signal: signal, ..settings.clone() });
        clock.step("admission");
        failpoints::RUN_ADMITTED.pass().await?;
        match write(core, &record, token.as_ref()).await? {
            Written::Done(answer) => {
                clock.step("record_written");
                failpoints::RUN_RECORDED.reach().await;
                driver::start(core, record, Start::Launch { payload: request.run_hook_payload, clock });
                return Ok(answer);
            }
            Written::Replayed(answer) => return Ok(answer),
            Written::Raced => {}
        }
    }
    Err(Failure::Contended)
}

/// What can be refused by the request alone.
fn admit(region: &str, request: &RunMicrovmRequest) -> Result<(ImageArn, RunSettings), Refusal> {
    let arn: ImageArn = request.image_identifier.parse()?;
    let settings = RunSettings {
        ingress_network_connectors: connectors::ingress(region, request.ingress_network_connectors.as_deref())?,
        egress_network_connectors: connectors::egress(region, request.egress_network_connectors.as_deref())?,
        execution_role_arn: request.execution_role_arn.clone(),
        idle_policy: request.idle_policy,
        logging: request.logging.clone(),
        maximum_duration_in_seconds: request.maximum_duration_in_seconds.unwrap_or(DEFAULT_MAXIMUM_DURATION_SECONDS),
        hooks: Hooks::default(),
        idle_signal: IdleSignal::default(),
    };
    Ok((arn, settings))
}

/// The version to launch: the one named, else the latest; ACTIVE and built in either case (observed).
async fn launchable(core: &Core, caller: &Caller, arn: &ImageArn, request: &RunMicrovmRequest) -> Result<VersionRecord, Failure> {
    let absent = || Refusal::NoActiveVersion { arn: request.image_identifier.clone(), version: request.image_version.clone() };
    if arn.account != caller.account {
        return Err(absent().into());
    }
    let image = core.store.image_by_arn(arn).await?.ok_or_else(absent)?;
    if matches!(image.state, ImageState::Deleting | ImageState::Deleted | ImageState::DeleteFailed) {
        return Err(absent().into());
    }
    let version = match &request.image_version {
        Some(version) => core.store.version(image.id, version.parse().map_err(|_| absent())?).await?,
        None => core.store.latest_active_version(image.id).await?,
    };
    let launchable = |version: &VersionRecord| version.state == VersionState::Successful && version.status == VersionStatus::Active;
    Ok(version.filter(launchable).ok_or_else(absent)?)
}

/// What the host is known to be short of is said at the call, which may be made again (ours). What runs short afterwards ends the launch.
async fn room(core: &Core) -> Result<(), Refusal> {
    if let Some(available) = pressure::low_memory(core).await {
        tracing::warn!(available_percent = available, "memory is short: a launch is refused");
        return Err(Refusal::HostShort(format!("HOST_EXHAUSTED: the host is out of memory: {available} % of it is available")));
    }
    match core.host.room().await {
        Ok(()) => Ok(()),
        Err(error @ (HostError::DiskFull | HostError::Exhausted(_))) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "a launch is refused");
            Err(Refusal::HostShort(failure_reason("launch", &error)))
        }
        // The launch will say what it is.
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the host could not say whether there is room");
            Ok(())
        }
    }
}

fn new_record(core: &Core, caller: &Caller, arn: &ImageArn, version: &VersionRecord, settings: RunSettings) -> MicrovmRecord {
    let now = core.steady.now();
    MicrovmRecord {
        id: MicrovmId::random(),
        account: caller.account.clone(),
        endpoint: EndpointId::random(),
        address: endpoint::new_address(&core.config.endpoint),
        image: version.image,
        image_arn: arn.clone(),
        version: version.version,
        image_key: version.image_key.clone(),
        memory_mib: definition::baseline_mib(&version.definition),
        phase: Phase::Launching,
        state_reason: None,
        settings: RunSettings { hooks: version.definition.hooks.clone().unwrap_or_default(), ..settings },
        timings: json!({}),
        started_at: now.wall,
        phase_since: now.wall,
        steady: SteadyLife::beginning(now.steady),
        terminated_at: None,
    }
}

enum Written {
    Done(Value),
    Replayed(Value),
    /// The address was taken, or the version has just stopped being launchable.
    Raced,
}

async fn write(core: &Core, record: &MicrovmRecord, token: Option<&ClientToken>) -> Result<Written, Failure> {
    let answer = views::microvm(&core.config.endpoint, record);
    match core.store.insert_microvm(record, &core.config.limits.room(), token, &answer).await? {
        Commit::Done => Ok(Written::Done(answer)),
        Commit::Raced => Ok(Written::Raced),
        commit => idempotency::otherwise(core, commit).map(Written::Replayed),
    }
}
