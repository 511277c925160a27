use emberbox_wire::error::ErrorCode::{self, NotImplemented, ResourceNotFound, UnknownOperation, Validation};
use serde_json::{Value, json};

use super::{ARN, BASE, World, definition, with};

const CONNECTOR: &str = "arn:aws:lambda:us-east-1:aws:network-connector:aws-network-connector";

fn connectors(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("{CONNECTOR}:{name}")).collect()
}

#[tokio::test]
async fn images_that_cannot_be_made() {
    let world = World::with_image().await;
    let no_base = format!("No managed MicroVM Image with arn {BASE} and version 9 is available");
    let cases: Vec<(Value, &str)> = vec![
        (json!({"name": "web"}), "A MicroVM image with the name 'web' already exists in this account"),
        (json!({"baseImageVersion": "9"}), &no_base),
        (json!({"baseImageArn": "al2023-1"}), "Malformed ARN - doesn't start with 'arn:'"),
        (json!({"baseImageArn": ARN, "baseImageVersion": "1"}), "No managed MicroVM Image with arn"),
        (json!({"resources": [{"minimumMemoryInMiB": 600}]}), "must be one of 512, 1024, 2048, 4096, 8192"),
        (json!({"cpuConfigurations": [{"architecture": "ARM_64"}]}), "X86_64 images only"),
        (json!({"hooks": {"microvmImageHooks": {"ready": "ENABLED"}}}), "hooks.port"),
        (json!({"codeArtifact": {"uri": "https://example"}}), "s3://bucket/key"),
        (json!({"egressNetworkConnectors": ["INTERNET_EGRESS"]}), "Malformed network connector ARN"),
    ];
    for (members, message) in cases {
        let request = with(with(definition(), json!({"name": "other"})), members);
        let (code, said) = world.refused("CreateMicrovmImage", request).await;
        assert_eq!(code, Validation, "{said}");
        assert!(said.contains(message), "{said}");
    }
    let images = world.ok("ListMicrovmImages", json!({})).await;
    assert_eq!(images["items"].as_array().unwrap().len(), 1, "nothing has been made");
}

#[tokio::test]
async fn microvms_that_cannot_be_run() {
    let world = World::with_image().await;
    let unknown = "arn:aws:lambda:us-east-1:123456789012:microvm-image:nobody";
    let foreign = "arn:aws:lambda:us-east-1:999999999999:microvm-image:web";
    let no_version = |arn: &str| format!("No active version found for MicroVM image {arn}");
    let all = "ALL_INGRESS cannot be combined with other ingress network connectors; use HTTP_INGRESS and/or SHELL_INGRESS instead";
    let cases: Vec<(Value, ErrorCode, String)> = vec![
        (json!({"imageIdentifier": "web"}), Validation, "Malformed ARN - doesn't start with 'arn:'".into()),
        (json!({"imageIdentifier": "arn:aws:lambda"}), Validation, "Malformed ARN".into()),
        (json!({"imageIdentifier": unknown}), ResourceNotFound, no_version(unknown)),
        (json!({"imageIdentifier": foreign}), ResourceNotFound, no_version(foreign)),
        (json!({"imageVersion": "7.0"}), ResourceNotFound, format!("{} and version 7.0", no_version(ARN))),
        (json!({"imageVersion": "x"}), ResourceNotFound, format!("{} and version x", no_version(ARN))),
        (json!({"ingressNetworkConnectors": ["HTTP_INGRESS"]}), Validation, "Malformed network connector ARN".into()),
        (json!({"ingressNetworkConnectors": connectors(&["ALL_INGRESS", "HTTP_INGRESS"])}), Validation, all.into()),
        (json!({"ingressNetworkConnectors": connectors(&["INTERNET_EGRESS"])}), Validation, "is not an ingress connector".into()),
        (json!({"egressNetworkConnectors": [format!("{CONNECTOR}:MINE")]}), ResourceNotFound, "does not exist".into()),
    ];
    for (members, code, message) in cases {
        let (refused, said) = world.refused("RunMicrovm", with(json!({"imageIdentifier": ARN}), members)).await;
        assert_eq!(refused, code, "{said}");
        assert!(said.contains(&message), "{said}");
    }
    assert_eq!(world.ok("ListMicrovms", json!({})).await, json!({"items": []}), "nothing has been run");
}

#[tokio::test]
async fn what_does_not_exist() {
    let world = World::with_image().await;
    let nobody = "microvm-00000000-0000-4000-8000-000000000000";
    for operation in ["GetMicrovm", "SuspendMicrovm", "ResumeMicrovm", "TerminateMicrovm"] {
        for id in [nobody, "web"] {
            assert_eq!(world.refused(operation, json!({"microvmIdentifier": id})).await.0, ResourceNotFound, "{operation}");
        }
    }
    let image = "arn:aws:lambda:us-east-1:123456789012:microvm-image:nobody";
    for operation in ["GetMicrovmImage", "DeleteMicrovmImage", "ListMicrovmImageVersions", "ListManagedMicrovmImageVersions"] {
        assert_eq!(world.refused(operation, json!({"imageIdentifier": image})).await.0, ResourceNotFound, "{operation}");
        assert_eq!(world.refused(operation, json!({"imageIdentifier": "nobody"})).await.0, Validation, "{operation}");
    }
    for operation in ["GetMicrovmImageVersion", "DeleteMicrovmImageVersion", "ListMicrovmImageBuilds"] {
        let version = json!({"imageIdentifier": ARN, "imageVersion": "9.0"});
        assert_eq!(world.refused(operation, version).await.0, ResourceNotFound, "{operation}");
    }
    let build = json!({"imageIdentifier": ARN, "imageVersion": "1.0", "buildId": "build-x"});
    assert_eq!(world.refused("GetMicrovmImageBuild", build).await.0, ResourceNotFound);
    assert_eq!(world.refused("MakeCoffee", json!({})).await.0, UnknownOperation);
}

#[tokio::test]
async fn tokens_that_are_not_given() {
    let world = World::with_image().await;
    let id = world.running(json!({})).await;
    let request = json!({"microvmIdentifier": id, "expirationInMinutes": 60, "allowedPorts": [{"port": 8080}]});
    let token = world.ok("CreateMicrovmAuthToken", request.clone()).await["authToken"]["X-aws-proxy-auth"].clone();
    assert_eq!(token.as_str().unwrap().split('.').count(), 5);
    let late = world.refused("CreateMicrovmAuthToken", with(request.clone(), json!({"expirationInMinutes": 61}))).await;
    assert_eq!(late.0, Validation);
    assert!(late.1.contains("Member must have value less than or equal to 60"), "{}", late.1);
    let backwards = json!({"allowedPorts": [{"range": {"startPort": 9, "endPort": 1}}]});
    assert_eq!(world.refused("CreateMicrovmAuthToken", with(request.clone(), backwards)).await.0, Validation);
    let shell = json!({"microvmIdentifier": id, "expirationInMinutes": 5});
    let said = "Shell access requires SHELL_INGRESS network connector to be configured on the MicroVM.";
    assert_eq!(world.refused("CreateMicrovmShellAuthToken", shell.clone()).await, (Validation, said.to_owned()));

    let both = world.running(json!({"ingressNetworkConnectors": connectors(&["HTTP_INGRESS", "SHELL_INGRESS"])})).await;
    let refused = world.refused("CreateMicrovmShellAuthToken", with(shell, json!({"microvmIdentifier": both}))).await;
    assert_eq!(refused.0, NotImplemented);
    world.ok("CreateMicrovmAuthToken", with(request.clone(), json!({"microvmIdentifier": both}))).await;

    let none = world.running(json!({"ingressNetworkConnectors": connectors(&["NO_INGRESS"])})).await;
    assert_eq!(world.refused("CreateMicrovmAuthToken", with(request.clone(), json!({"microvmIdentifier": none}))).await.0, Validation);
    world.change("TerminateMicrovm", id).await;
    assert_eq!(world.refused("CreateMicrovmAuthToken", request).await.0, ErrorCode::Conflict);
}
