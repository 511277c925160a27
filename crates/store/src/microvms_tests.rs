#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;

use emberbox_wire::microvms::{Hooks, IdlePolicy, ImageState, Logging};
use serde_json::json;

use super::*;
use crate::images::tests::{outcome, records};
use crate::{ImageRecord, NewImage, Phase, RunSettings, VersionRecord};

async fn launchable(store: &Store) -> (ImageRecord, VersionRecord) {
    let (image, version, build) = records("one");
    store
        .create_image(&NewImage { image: &image, version: &version, build: &build, tags: &BTreeMap::new() }, 9, None, &json!({}))
        .await
        .unwrap();
    store.write_build(&outcome(&version, &build, true)).await.unwrap();
    (image, version)
}

fn microvm(image: &ImageRecord, version: &VersionRecord, address: Option<Ipv4Addr>) -> MicrovmRecord {
    let now = UnixMillis(1_700_000_000_123);
    MicrovmRecord {
        id: MicrovmId::random(),
        account: image.arn.account.clone(),
        endpoint: EndpointId::random(),
        address,
        image: image.id,
        image_arn: image.arn.clone(),
        version: version.version,
        image_key: version.image_key.clone(),
        memory_mib: 512,
        phase: Phase::Launching,
        state_reason: None,
        settings: RunSettings {
            ingress_network_connectors: vec!["i".into()],
            egress_network_connectors: vec!["e".into()],
            execution_role_arn: Some("r".into()),
            idle_policy: Some(IdlePolicy { max_idle_duration_seconds: 60, suspended_duration_seconds: 0, auto_resume_enabled: true }),
            logging: Some(Logging::Disabled {}),
            maximum_duration_in_seconds: 28_800,
            hooks: Hooks::default(),
            idle_signal: crate::IdleSignal::TrafficAndCpu,
        },
        timings: json!({}),
        started_at: now,
        phase_since: now,
        steady: SteadyLife::beginning(SteadyMillis(now.0)),
        terminated_at: None,
    }
}

#[tokio::test]
async fn a_microvm_round_trips_in_every_phase() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("emberbox.db");
    let store = Store::open(&path).await.unwrap();
    let (image, version) = launchable(&store).await;
    let mut record = microvm(&image, &version, Some(Ipv4Addr::new(127, 64, 0, 1)));
    assert_eq!(store.insert_microvm(&record, &Room::UNLIMITED, None, &json!({})).await.unwrap(), Commit::Done);
    for phase in Phase::ALL {
        record.phase = phase;
        record.state_reason = Some(format!("{phase:?}"));
        record.timings = json!({"launch": {"total_ms": 1.25}});
        record.steady.since = SteadyMillis(record.steady.since.0 + 5);
        record.steady.touched = record.steady.since;
        record.terminated_at = (phase == Phase::Terminated).then_some(UnixMillis(7));
        store.update_microvm(&record).await.unwrap();
        assert_eq!(store.microvm(record.id).await.unwrap().unwrap(), record);
    }
    assert_eq!(store.microvm_by_endpoint(record.endpoint).await.unwrap().unwrap().id, record.id);
    store.close().await;
    let store = Store::open(&path).await.unwrap();
    assert_eq!(store.microvm_by_address(Ipv4Addr::new(127, 64, 0, 1)).await.unwrap().unwrap(), record);
}

#[tokio::test]
async fn an_address_is_one_living_microvms() {
    let store = Store::in_memory().await.unwrap();
    let (image, version) = launchable(&store).await;
    let address = Some(Ipv4Addr::new(127, 64, 0, 1));
    let mut first = microvm(&image, &version, address);
    let second = microvm(&image, &version, address);
    assert_eq!(store.insert_microvm(&first, &Room::UNLIMITED, None, &json!({})).await.unwrap(), Commit::Done);
    assert_eq!(store.insert_microvm(&second, &Room::UNLIMITED, None, &json!({})).await.unwrap(), Commit::Raced);
    assert_eq!(store.begin_image_delete(image.id, ImageState::Created, UnixMillis(1)).await.unwrap(), Commit::Raced);
    assert_eq!(store.count_live_microvms(image.id, Some(version.version)).await.unwrap(), 1);
    first.phase = Phase::Terminated;
    store.update_microvm(&first).await.unwrap();
    assert_eq!(store.insert_microvm(&second, &Room::UNLIMITED, None, &json!({})).await.unwrap(), Commit::Done);
    assert_eq!(store.microvm_by_address(Ipv4Addr::new(127, 64, 0, 1)).await.unwrap().unwrap().id, second.id);
    assert_eq!(store.live_microvms().await.unwrap().len(), 1);
    let page = store.microvms(&image.arn.account, Some(&image.arn), Some(version.version), None, 1).await.unwrap();
    assert_eq!(page.items[0].id, second.id);
    let page = store.microvms(&image.arn.account, None, None, page.next, 1).await.unwrap();
    assert_eq!((page.items[0].id, page.next), (first.id, None));
}

#[tokio::test]
async fn terminated_ones_are_forgotten_in_time_and_traffic_is_kept() {
    let store = Store::in_memory().await.unwrap();
    let (image, version) = launchable(&store).await;
    let (mut first, second) = (microvm(&image, &version, None), microvm(&image, &version, None));
    for record in [&first, &second] {
        store.insert_microvm(record, &Room::UNLIMITED, None, &json!({})).await.unwrap();
    }
    let touched = SteadyMillis(second.steady.touched.0 + 9);
    store.keep_touched(&[(second.id, touched), (second.id, SteadyMillis(1))]).await.unwrap();
    assert_eq!(store.microvm(second.id).await.unwrap().unwrap().steady.touched, touched);
    first.phase = Phase::Terminated;
    store.update_microvm(&first).await.unwrap();
    let since = first.steady.since.0;
    assert_eq!(store.forget_terminated(SteadyMillis(since)).await.unwrap(), []);
    assert_eq!(store.forget_terminated(SteadyMillis(since + 1)).await.unwrap(), [first.id]);
    assert_eq!(store.microvm(first.id).await.unwrap(), None);
    assert!(store.microvm(second.id).await.unwrap().is_some());
}

#[tokio::test]
async fn a_version_that_is_not_active_launches_nothing() {
    let store = Store::in_memory().await.unwrap();
    let (image, version) = launchable(&store).await;
    let inactive = emberbox_wire::microvms::VersionStatus::Inactive;
    store.set_version_status(image.id, version.version, inactive, UnixMillis(1)).await.unwrap();
    assert_eq!(store.insert_microvm(&microvm(&image, &version, None), &Room::UNLIMITED, None, &json!({})).await.unwrap(), Commit::Raced);
}

#[tokio::test]
async fn memory_is_counted_but_for_what_is_suspended_or_ended() {
    let store = Store::in_memory().await.unwrap();
    let (image, version) = launchable(&store).await;
    let mut first = microvm(&image, &version, None);
    let second = microvm(&image, &version, None);
    let room = |host_mib, account_mib| Room { host_mib, account_mib, account_microvms: None };
    let insert = async |record: &MicrovmRecord, room: Room| store.insert_microvm(record, &room, None, &json!({})).await.unwrap();
    assert_eq!(insert(&first, room(511, None)).await, Commit::NoRoom);
    assert_eq!(insert(&first, room(u64::MAX, Some(511))).await, Commit::OverQuota(Quota::MemoryMib));
    assert_eq!(insert(&first, room(512, Some(512))).await, Commit::Done);
    assert_eq!(insert(&second, room(1023, None)).await, Commit::NoRoom);
    first.phase = Phase::Suspended;
    store.update_microvm(&first).await.unwrap();
    assert_eq!(insert(&second, room(512, None)).await, Commit::Done, "a suspended one holds no memory");
    let waking = MicrovmRecord { phase: Phase::Resuming, ..first.clone() };
    assert_eq!(store.begin_resume(&waking, &room(1023, None)).await.unwrap(), Commit::NoRoom);
    assert_eq!(store.begin_resume(&waking, &room(u64::MAX, Some(1023))).await.unwrap(), Commit::OverQuota(Quota::MemoryMib));
    assert_eq!(store.microvm(first.id).await.unwrap().unwrap().phase, Phase::Suspended);
    assert_eq!(store.begin_resume(&waking, &room(1024, None)).await.unwrap(), Commit::Done);
    assert_eq!(store.microvm(first.id).await.unwrap().unwrap().phase, Phase::Resuming);
    let third = microvm(&image, &version, None);
    let two = Room { account_microvms: Some(2), ..Room::UNLIMITED };
    assert_eq!(insert(&third, two).await, Commit::OverQuota(Quota::Microvms));
}

/// Runs the first `launches` of many concurrent ones that fit.
#[tokio::test]
async fn the_last_place_is_given_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("emberbox.db")).await.unwrap();
    let (image, version) = launchable(&store).await;
    let room = Room { host_mib: 5 * 512, account_mib: None, account_microvms: None };
    let launches = (0..40).map(|_| {
        let (store, record) = (store.clone(), microvm(&image, &version, None));
        tokio::spawn(async move { store.insert_microvm(&record, &room, None, &json!({})).await.unwrap() })
    });
    let mut done = 0;
    for launch in launches.collect::<Vec<_>>() {
        match launch.await.unwrap() {
            Commit::Done => done += 1,
            refused => assert_eq!(refused, Commit::NoRoom),
        }
    }
    assert_eq!(done, 5);
}
