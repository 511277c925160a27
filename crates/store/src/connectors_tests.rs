#![allow(clippy::unwrap_used)]
use emberbox_wire::connectors::{ComputeResourceType, NetworkProtocol, VpcEgress};
use emberbox_wire::microvms::Hooks;
use serde_json::json;

use super::*;
use crate::images::tests::{outcome, records};
use crate::{MicrovmRecord, NewImage, Phase, Room, RunSettings};

fn connector(name: &str) -> (ConnectorRecord, ConnectorVersionRecord) {
    let now = UnixMillis(1_700_000_000_123);
    let arn =
        ConnectorArn { region: "us-east-1".into(), account: AccountId("123456789012".into()), id: ConnectorId::random(), version: None };
    let configuration = ConnectorConfiguration::VpcEgressConfiguration(VpcEgress {
        subnet_ids: Some(vec!["subnet-1".into()]),
        security_group_ids: None,
        network_protocol: Some(NetworkProtocol::IPv4),
        associated_compute_resource_types: Some(vec![ComputeResourceType::MicroVm]),
        elastic_ip_configuration: None,
    });
    let version = ConnectorVersionRecord {
        connector: arn.id,
        version: 1,
        state: ConnectorState::Pending,
        configuration,
        operator_role: Some("r".into()),
        modified_at: now,
    };
    let record = ConnectorRecord {
        arn,
        name: name.into(),
        state: ConnectorState::Pending,
        state_reason: None,
        version: 1,
        update_status: None,
        created_at: now,
        modified_at: now,
    };
    (record, version)
}

async fn create(store: &Store, record: &ConnectorRecord, version: &ConnectorVersionRecord) -> Commit {
    let tags = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
    store.create_connector(record, version, &tags, 2, None, &json!({})).await.unwrap()
}

#[tokio::test]
async fn a_connector_round_trips_and_settles() {
    let store = Store::in_memory().await.unwrap();
    let (record, version) = connector("one");
    assert_eq!(create(&store, &record, &version).await, Commit::Done);
    assert_eq!(store.connector(record.arn.id).await.unwrap().unwrap(), record);
    assert_eq!(store.connector_version(record.arn.id, 1).await.unwrap().unwrap(), version);
    let (same_name, its_version) = connector("one");
    assert_eq!(create(&store, &same_name, &its_version).await, Commit::Raced);

    assert_eq!(store.unsettled_connectors().await.unwrap(), [record.arn.id]);
    for _ in 0..2 {
        store.settle_connector(&record.arn, UnixMillis(5)).await.unwrap();
    }
    let active = store.connector_by_name(&record.arn.account, "one").await.unwrap().unwrap();
    assert_eq!((active.state, active.version, active.update_status), (ConnectorState::Active, 1, None));
    assert_eq!(store.unsettled_connectors().await.unwrap(), []);

    let second = ConnectorVersionRecord { version: 2, modified_at: UnixMillis(6), ..version.clone() };
    assert_eq!(store.begin_connector_update(&active, &second, 9, None, &json!({})).await.unwrap(), Commit::Done);
    let again = ConnectorVersionRecord { version: 3, ..second.clone() };
    assert_eq!(store.begin_connector_update(&active, &again, 9, None, &json!({})).await.unwrap(), Commit::Raced, "one at a time");
    assert_eq!(
        store.begin_connector_update(&active, &again, 2, None, &json!({})).await.unwrap(),
        Commit::OverQuota(Quota::ConnectorVersions)
    );
    assert_eq!(store.begin_connector_delete(&active, UnixMillis(7)).await.unwrap(), Commit::Raced, "not while it is updated");
    store.settle_connector(&record.arn, UnixMillis(8)).await.unwrap();
    let updated = store.connector(record.arn.id).await.unwrap().unwrap();
    assert_eq!((updated.version, updated.update_status), (2, Some(UpdateStatus::Successful)));

    assert_eq!(store.begin_connector_version_delete(&second, UnixMillis(9)).await.unwrap(), Commit::Raced, "the latest");
    let first = store.connector_version(record.arn.id, 1).await.unwrap().unwrap();
    assert_eq!(store.begin_connector_version_delete(&first, UnixMillis(9)).await.unwrap(), Commit::Done);
    store.settle_connector(&record.arn, UnixMillis(9)).await.unwrap();
    let left = store.connector_versions(record.arn.id, Some(ConnectorState::Active), None, 9).await.unwrap().items;
    assert_eq!(left.iter().map(|version| version.version).collect::<Vec<_>>(), [2]);

    assert_eq!(store.begin_connector_delete(&updated, UnixMillis(10)).await.unwrap(), Commit::Done);
    store.settle_connector(&record.arn, UnixMillis(11)).await.unwrap();
    assert_eq!(store.connector(record.arn.id).await.unwrap().unwrap().state, ConnectorState::Deleted);
    assert!(store.tags(&record.arn.to_string()).await.unwrap().is_empty());
    assert_eq!(create(&store, &same_name, &its_version).await, Commit::Done, "the name is free");
}

#[tokio::test]
async fn an_account_has_so_many_and_lists_them_newest_first() {
    let store = Store::in_memory().await.unwrap();
    for name in ["one", "two"] {
        let (record, version) = connector(name);
        assert_eq!(create(&store, &record, &version).await, Commit::Done);
    }
    let (third, its_version) = connector("three");
    assert_eq!(create(&store, &third, &its_version).await, Commit::OverQuota(Quota::Connectors));
    let page = store.connectors(&third.arn.account, None, None, 1).await.unwrap();
    assert_eq!(page.items[0].name, "two");
    let page = store.connectors(&third.arn.account, Some(ConnectorState::Pending), page.next, 1).await.unwrap();
    assert_eq!((page.items[0].name.as_str(), page.next), ("one", None));
    assert!(store.connectors(&third.arn.account, Some(ConnectorState::Active), None, 9).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn a_connector_in_use_stays() {
    let store = Store::in_memory().await.unwrap();
    let (record, version) = connector("one");
    create(&store, &record, &version).await;
    store.settle_connector(&record.arn, UnixMillis(5)).await.unwrap();
    let record = store.connector(record.arn.id).await.unwrap().unwrap();
    let (image, image_version, build) = records("image");
    let new = NewImage { image: &image, version: &image_version, build: &build, tags: &BTreeMap::new() };
    store.create_image(&new, 9, None, &json!({})).await.unwrap();
    store.write_build(&outcome(&image_version, &build, true)).await.unwrap();
    let mut microvm = MicrovmRecord {
        id: emberbox_wire::ids::MicrovmId::random(),
        account: record.arn.account.clone(),
        endpoint: emberbox_wire::ids::EndpointId::random(),
        address: None,
        image: image.id,
        image_arn: image.arn.clone(),
        version: image_version.version,
        image_key: image_version.image_key.clone(),
        memory_mib: 512,
        phase: Phase::Running,
        state_reason: None,
        settings: RunSettings {
            ingress_network_connectors: Vec::new(),
            egress_network_connectors: vec![record.arn.of_version(1).to_string()],
            execution_role_arn: None,
            idle_policy: None,
            logging: None,
            maximum_duration_in_seconds: 1,
            hooks: Hooks::default(),
            idle_signal: crate::IdleSignal::Traffic,
        },
        timings: json!({}),
        started_at: UnixMillis(1),
        phase_since: UnixMillis(1),
        steady: crate::SteadyLife::beginning(crate::SteadyMillis(1)),
        terminated_at: None,
    };
    assert_eq!(store.insert_microvm(&microvm, &Room::UNLIMITED, None, &json!({})).await.unwrap(), Commit::Done);
    assert_eq!(store.count_connector_users(&record.arn).await.unwrap(), 1);
    assert_eq!(store.begin_connector_delete(&record, UnixMillis(6)).await.unwrap(), Commit::Raced);
    microvm.phase = Phase::Terminated;
    store.update_microvm(&microvm).await.unwrap();
    assert_eq!(store.begin_connector_delete(&record, UnixMillis(6)).await.unwrap(), Commit::Done);
}
