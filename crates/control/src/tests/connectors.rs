//! Customers' network connectors: records, versions, listings, and that nothing goes through one.

use emberbox_wire::error::ErrorCode::{
    Conflict, InvalidParameterValue, NetworkConnectorLimitExceeded, NotImplemented, ResourceNotFound, Validation,
};
use serde_json::{Value, json};

use super::{ARN, World, caller, definition, eventually, with};

fn request(name: &str) -> Value {
    json!({
        "Name": name, "ClientToken": format!("token-{name}"), "OperatorRole": "arn:aws:iam::123456789012:role/operator",
        "Configuration": {"VpcEgressConfiguration": {
            "SubnetIds": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"], "NetworkProtocol": "IPv4", "AssociatedComputeResourceTypes": ["MicroVm"],
        }},
    })
}

fn egress(members: Value) -> Value {
    let mut configuration = request("x")["Configuration"].clone();
    configuration["VpcEgressConfiguration"].as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    configuration
}

impl World {
    async fn connector(&self, name: &str) -> String {
        let created = self.ok("CreateNetworkConnector", request(name)).await;
        assert_eq!(created["State"], "PENDING");
        let arn = created["Arn"].as_str().unwrap().to_owned();
        self.connector_state(&arn, "ACTIVE").await;
        arn
    }

    async fn connector_state(&self, identifier: &str, wanted: &str) {
        eventually(wanted, async || {
            self.call("GetNetworkConnector", json!({"Identifier": identifier})).await.is_ok_and(|found| found["State"] == wanted)
        })
        .await;
    }
}

#[tokio::test]
async fn a_connector_is_created_found_updated_and_deleted() {
    let world = World::new().await;
    let created = world.ok("CreateNetworkConnector", with(request("net"), json!({"Tags": {"k": "v"}}))).await;
    let (arn, id) = (created["Arn"].as_str().unwrap().to_owned(), created["Id"].as_str().unwrap().to_owned());
    assert_eq!(arn, format!("arn:aws:lambda:us-east-1:123456789012:network-connector:{id}"));
    assert_eq!((&created["Version"], &created["VersionArn"]), (&json!(1), &json!(format!("{arn}:1"))));
    assert_eq!(created["Configuration"], request("net")["Configuration"]);
    world.connector_state(&arn, "ACTIVE").await;
    for identifier in ["net", &id, &arn] {
        let found = world.ok("GetNetworkConnector", json!({"Identifier": identifier})).await;
        assert_eq!((&found["Name"], &found["LatestVersion"], found.get("VersionArn")), (&json!("net"), &json!(1), None));
        assert_eq!(found.get("LastUpdateStatus"), None, "absent until it is updated");
    }
    assert_eq!(world.ok("ListTags", json!({"Resource": arn})).await, json!({"Tags": {"k": "v"}}));
    world.ok("TagResource", json!({"Resource": arn, "Tags": {"a": "b"}})).await;
    world.ok("UntagResource", json!({"Resource": arn, "TagKeys": ["k"]})).await;
    assert_eq!(world.ok("ListTags", json!({"Resource": arn})).await, json!({"Tags": {"a": "b"}}));

    let other = json!({"Identifier": "net", "Configuration": egress(json!({"SubnetIds": ["subnet-3"]})), "ClientToken": "u"});
    let updated = world.ok("UpdateNetworkConnector", other.clone()).await;
    assert_eq!((&updated["Version"], &updated["LastUpdateStatus"]), (&json!(2), &json!("InProgress")));
    assert_eq!(world.ok("UpdateNetworkConnector", other).await, updated, "the token replays");
    eventually("updated", async || world.ok("GetNetworkConnector", json!({"Identifier": "net"})).await["LastUpdateStatus"] == "Successful")
        .await;
    let found = world.ok("GetNetworkConnector", json!({"Identifier": "net"})).await;
    assert_eq!((&found["Version"], &found["OperatorRole"]), (&json!(2), &request("net")["OperatorRole"]));
    let first = world.ok("GetNetworkConnector", json!({"Identifier": format!("{arn}:1")})).await;
    assert_eq!((&first["Version"], &first["VersionArn"], first.get("LatestVersion")), (&json!(1), &json!(format!("{arn}:1")), None));
    assert_eq!(first["Configuration"], request("net")["Configuration"], "a version does not change");
    let same = world.ok("UpdateNetworkConnector", json!({"Identifier": "net", "Configuration": found["Configuration"]})).await;
    assert_eq!((&same["Version"], &same["LastUpdateStatus"]), (&json!(2), &json!("Successful")), "the same again changes nothing");

    let latest = world.refused("DeleteNetworkConnector", json!({"Identifier": format!("{arn}:2")})).await;
    assert_eq!(latest.0, InvalidParameterValue);
    for _ in 0..2 {
        let deleted = world.ok("DeleteNetworkConnector", json!({"Identifier": format!("{arn}:1")})).await;
        assert_eq!((&deleted["Version"], &deleted["State"]), (&json!(1), &json!("DELETING")));
    }
    eventually("version gone", async || world.call("GetNetworkConnector", json!({"Identifier": format!("{arn}:1")})).await.is_err()).await;
    let versions = world.ok("ListNetworkConnectorVersions", json!({"Identifier": "net"})).await;
    assert_eq!(versions["NetworkConnectorVersions"].as_array().unwrap().len(), 1);

    assert_eq!(world.ok("DeleteNetworkConnector", json!({"Identifier": "net"})).await["State"], "DELETING");
    eventually("gone", async || world.call("GetNetworkConnector", json!({"Identifier": arn})).await.is_err()).await;
    let gone = world.refused("GetNetworkConnector", json!({"Identifier": "net"})).await;
    assert_eq!(
        gone,
        (ResourceNotFound, "Network connector not found for: arn:aws:lambda:us-east-1:123456789012:network-connector:net".into())
    );
    for identifier in ["net", &id, &arn] {
        world.ok("DeleteNetworkConnector", json!({"Identifier": identifier})).await;
    }
    assert_eq!(world.refused("ListTags", json!({"Resource": arn})).await.0, ResourceNotFound);
    let anew = world.ok("CreateNetworkConnector", with(request("net"), json!({"ClientToken": "anew"}))).await;
    assert_ne!(anew["Arn"], json!(arn), "the name is free, the id never again");
}

#[tokio::test]
async fn what_a_connector_needs() {
    let world = World::new().await;
    let without = |member: &str| {
        let mut members = request("x");
        members.as_object_mut().unwrap().remove(member);
        members
    };
    let unset = |member: &str| {
        let mut members = request("x");
        members["Configuration"]["VpcEgressConfiguration"].as_object_mut().unwrap().remove(member);
        members
    };
    for (members, words) in [
        (without("ClientToken"), "ClientToken is a required field"),
        (without("OperatorRole"), "NetworkConnectorOperatorRole is required for VPC_EGRESS connector type"),
        (unset("AssociatedComputeResourceTypes"), "AssociatedComputeResourceTypes is required"),
        (unset("NetworkProtocol"), "NetworkProtocol cannot be null or empty"),
        (unset("SubnetIds"), "SubnetIds is required"),
        (with(request("x"), json!({"Name": "arn:aws:lambda:us-east-1:123456789012:network-connector:x"})), "not an ARN"),
    ] {
        let (code, message) = world.refused("CreateNetworkConnector", members).await;
        assert_eq!(code, InvalidParameterValue, "{message}");
        assert!(message.contains(words), "{message}");
    }
    let reserved = world.refused("CreateNetworkConnector", with(request("x"), json!({"Tags": {"aws:x": "1"}}))).await;
    assert_eq!(reserved.0, Validation);
    world.connector("x").await;
    let taken = with(request("x"), json!({"ClientToken": "another"}));
    assert_eq!(world.refused("CreateNetworkConnector", taken).await.0, Conflict);
    let reused = with(request("x"), json!({"Name": "y"}));
    assert_eq!(world.refused("CreateNetworkConnector", reused).await.0, Conflict);
    for identifier in ["nobody", "nc-00000000-0000-4000-8000-000000000000"] {
        for operation in ["GetNetworkConnector", "DeleteNetworkConnector", "UpdateNetworkConnector", "ListNetworkConnectorVersions"] {
            assert_eq!(world.refused(operation, json!({"Identifier": identifier})).await.0, ResourceNotFound, "{operation}");
        }
    }
    assert_eq!(world.refused("GetNetworkConnector", json!({"Identifier": "arn:aws:lambda:x"})).await.0, InvalidParameterValue);
    let foreign = world.control.call(&caller("999999999999"), "GetNetworkConnector", json!({"Identifier": "x"})).await;
    assert_eq!(foreign.unwrap_err().code, ResourceNotFound);
}

#[tokio::test]
async fn connectors_are_listed_by_pages_and_state() {
    let world = World::limited(|limits| limits.quotas.network_connectors = 5).await;
    for n in 0..5 {
        world.connector(&format!("c{n}")).await;
    }
    let over = world.refused("CreateNetworkConnector", request("c5")).await;
    assert_eq!(over.0, NetworkConnectorLimitExceeded);
    let mut seen = Vec::new();
    let mut marker = Value::Null;
    loop {
        let page = world.ok("ListNetworkConnectors", json!({"MaxItems": 2, "State": "ACTIVE", "Marker": marker})).await;
        seen.extend(page["NetworkConnectors"].as_array().unwrap().iter().map(|item| item["Name"].as_str().unwrap().to_owned()));
        match page.get("NextMarker") {
            Some(next) => marker = next.clone(),
            None => break,
        }
    }
    assert_eq!(seen, ["c4", "c3", "c2", "c1", "c0"]);
    let first = world.ok("ListNetworkConnectors", json!({"MaxItems": 1})).await["NextMarker"].clone();
    assert_eq!(world.refused("ListNetworkConnectors", json!({"Marker": first, "State": "ACTIVE"})).await.0, InvalidParameterValue);
    assert_eq!(world.refused("ListMicrovms", json!({"nextToken": first})).await.0, Validation);
    assert_eq!(world.ok("ListNetworkConnectors", json!({"State": "FAILED"})).await, json!({"NetworkConnectors": []}));
}

#[tokio::test]
async fn nothing_goes_out_through_a_connector_and_nothing_goes_around_it() {
    let world = World::with_image().await;
    let arn = world.connector("net").await;
    let functions = egress(json!({"AssociatedComputeResourceTypes": ["WebFunction"]}));
    let other = world.ok("CreateNetworkConnector", with(request("functions"), json!({"Configuration": functions}))).await;
    world.connector_state("functions", "ACTIVE").await;
    let absent = "arn:aws:lambda:us-east-1:123456789012:network-connector:nc-00000000-0000-4000-8000-000000000000";
    let internet = "arn:aws:lambda:us-east-1:aws:network-connector:aws-network-connector:INTERNET_EGRESS";
    for (connectors, code) in [
        (json!([arn]), NotImplemented),
        (json!([format!("{arn}:1")]), NotImplemented),
        (json!([internet, arn]), NotImplemented),
        (json!([other["Arn"]]), Validation),
        (json!([absent]), ResourceNotFound),
        (json!([format!("{arn}:2")]), ResourceNotFound),
    ] {
        let members = json!({"imageIdentifier": ARN, "egressNetworkConnectors": connectors});
        assert_eq!(world.refused("RunMicrovm", members).await.0, code, "{connectors}");
        if connectors.as_array().unwrap().len() == 1 {
            let image = with(definition(), json!({"name": "other", "egressNetworkConnectors": connectors}));
            assert_eq!(world.refused("CreateMicrovmImage", image).await.0, code, "{connectors}");
        }
    }
    assert_eq!(world.ok("ListMicrovms", json!({})).await, json!({"items": []}), "nothing has been run");
    world.ok("DeleteNetworkConnector", json!({"Identifier": arn})).await;
    eventually("gone", async || world.call("GetNetworkConnector", json!({"Identifier": arn})).await.is_err()).await;
    let gone = world.refused("RunMicrovm", json!({"imageIdentifier": ARN, "egressNetworkConnectors": [arn]})).await;
    assert_eq!(gone.0, ResourceNotFound);
}

#[tokio::test]
async fn a_restart_ends_what_was_begun() {
    let mut world = World::new().await;
    world.ok("CreateNetworkConnector", request("net")).await;
    world.restart().await;
    world.connector_state("net", "ACTIVE").await;
}
