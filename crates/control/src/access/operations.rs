//! What each operation of Lambda needs: its own action on the thing it names, and the passing on of roles and connectors.
//!
//! Which resource an action is about:
//!
//! | operations | resource | known |
//! |---|---|---|
//! | lists of all images, MicroVMs, connectors, managed images | `*` | observed |
//! | CreateMicrovmImage, CreateNetworkConnector | `*`; the ARN it will have is matched, too | observed; ours |
//! | those that name an image | the image | observed |
//! | those that name a MicroVM | its image; `arn:aws:lambda:<region>:<account>:microvm:<id>` is matched, too | observed |
//! | TagResource, UntagResource, ListTags | the ARN given | documented |
//! | those that name a connector | its ARN; the ARN with its name is matched, too | observed |
//!
//! A thing of another account, and one that does not exist, looks absent to those who might see its kind: the operation itself says so.

use emberbox_store::StoreError;
use emberbox_wire::arn::{ImageArn, ManagedConnector};
use emberbox_wire::caller::{Caller, Principal};
use emberbox_wire::error::ApiError;
use emberbox_wire::ids::MicrovmId;
use serde_json::Value;

use super::check::{AccessError, Question};
use super::policy::Context;
use super::roles::LAMBDA;
use crate::control::Core;
use crate::operations::connector_lookup::{self, Named};
use crate::refusal::Failure;

/// What an operation is about.
enum Thing {
    /// By its ARNs; a refusal names the first.
    Known(Vec<String>),
    Absent(String),
}

/// Everything the operation needs is allowed to the caller.
pub(crate) async fn authorize(core: &Core, caller: &Caller, operation: &str, input: &Value) -> Result<(), ApiError> {
    if caller.principal == Principal::Root {
        return Ok(());
    }
    Ok(all_allowed(core, caller, operation, input).await?)
}

async fn all_allowed(core: &Core, caller: &Caller, operation: &str, input: &Value) -> Result<(), AccessError> {
    let thing = thing(core, caller, operation, input).await?;
    let context = request_tags(input);
    let action = format!("lambda:{operation}");
    match thing {
        Thing::Absent(arn) => core.access.check_absent(caller, &Question { context, ..Question::new(action, arn) }).await?,
        Thing::Known(resources) => {
            let context = with_resource_tags(core, caller, context, &resources).await?;
            if creates_with_tags(operation, input) {
                let question = Question { action: "lambda:TagResource".into(), resources: resources.clone(), context: context.clone() };
                core.access.check(caller, &question).await?;
            }
            core.access.check(caller, &Question { action, resources, context }).await?;
        }
    }
    for question in passed_on(&core.config.region, operation, input) {
        core.access.check(caller, &question).await?;
    }
    Ok(())
}

async fn thing(core: &Core, caller: &Caller, operation: &str, input: &Value) -> Result<Thing, StoreError> {
    let (region, account) = (&core.config.region, &caller.account);
    let member = |name: &str| input.get(name).and_then(Value::as_str);
    let of_account = |kind: &str, name: &str| format!("arn:aws:lambda:{region}:{account}:{kind}:{name}");
    if let Some(id) = member("microvmIdentifier") {
        return microvm(core, caller, id, of_account("microvm", id)).await;
    }
    // A managed image is everybody's; listings filter by an image, and are about all.
    let lists = operation.starts_with("ListManaged") || matches!(operation, "ListMicrovms" | "ListMicrovmImages" | "ListNetworkConnectors");
    if lists {
        return Ok(Thing::Known(vec!["*".into()]));
    }
    if let Some(given) = member("imageIdentifier") {
        return Ok(match given.parse::<ImageArn>() {
            Ok(arn) if arn.account == *account => Thing::Known(vec![given.to_owned()]),
            Ok(_) | Err(_) => Thing::Absent(given.to_owned()),
        });
    }
    if let Some(given) = member("Identifier").or_else(|| member("Resource").filter(|arn| arn.contains(":network-connector:"))) {
        return connector(core, caller, given, of_account("network-connector", given)).await;
    }
    if let Some(given) = member("Resource") {
        return Ok(if arn_account(given) == Some(&account.0) {
            Thing::Known(vec![given.to_owned()])
        } else {
            Thing::Absent(given.to_owned())
        });
    }
    Ok(Thing::Known(match (operation, member("name").or_else(|| member("Name"))) {
        ("CreateMicrovmImage", Some(name)) => vec!["*".into(), of_account("microvm-image", name)],
        ("CreateNetworkConnector", Some(name)) => vec!["*".into(), of_account("network-connector", name)],
        _ => vec!["*".into()],
    }))
}

async fn microvm(core: &Core, caller: &Caller, id: &str, arn: String) -> Result<Thing, StoreError> {
    let Ok(id) = id.parse::<MicrovmId>() else { return Ok(Thing::Absent(arn)) };
    let (account, image) = match core.microvms.get(id) {
        Some(handle) => (handle.account, handle.image),
        None => match core.store.microvm(id).await? {
            Some(record) => (record.account, record.image_arn),
            None => return Ok(Thing::Absent(arn)),
        },
    };
    Ok(if account == caller.account { Thing::Known(vec![image.to_string(), arn]) } else { Thing::Absent(arn) })
}

/// By its ARN, which has its id, and by the ARN with its name, which the service authorization reference has (observed: both are matched).
async fn connector(core: &Core, caller: &Caller, identifier: &str, sought: String) -> Result<Thing, StoreError> {
    match connector_lookup::connector_or_tombstone(core, caller, identifier).await {
        Ok(Named { record, .. }) => {
            let by_name = format!("arn:aws:lambda:{}:{}:network-connector:{}", record.arn.region, record.arn.account, record.name);
            Ok(Thing::Known(vec![record.arn.to_string(), by_name]))
        }
        Err(Failure::Store(error)) => Err(error),
        Err(_) => Ok(Thing::Absent(if identifier.starts_with("arn:") { identifier.to_owned() } else { sought })),
    }
}

/// The fifth part of an ARN. An id or a name is none.
fn arn_account(text: &str) -> Option<&str> {
    text.starts_with("arn:").then(|| text.split(':').nth(4)).flatten()
}

/// `aws:RequestTag/...` and `aws:TagKeys`: of tags given, or of keys to remove.
fn request_tags(input: &Value) -> Context {
    let mut context = Context::default();
    let given = input.get("tags").or_else(|| input.get("Tags")).and_then(Value::as_object);
    let mut keys = Vec::new();
    for (key, value) in given.into_iter().flatten() {
        context.set(format!("aws:requesttag/{key}"), value.as_str().unwrap_or_default());
        keys.push(key.clone());
    }
    let removed = input.get("TagKeys").and_then(Value::as_array);
    keys.extend(removed.into_iter().flatten().filter_map(|key| key.as_str().map(str::to_owned)));
    context.set_all("aws:tagkeys", keys);
    context
}

async fn with_resource_tags(core: &Core, caller: &Caller, mut context: Context, resources: &[String]) -> Result<Context, StoreError> {
    context.set("aws:resourceaccount", &caller.account.0);
    if let Some(arn) = resources.iter().find(|arn| *arn != "*")
        && core.access.by_resource_tags(caller).await?
    {
        for (key, value) in core.store.tags(arn).await? {
            context.set(format!("aws:resourcetag/{key}"), value);
        }
    }
    Ok(context)
}

/// Tags given to what is made need the permission to tag (documented).
fn creates_with_tags(operation: &str, input: &Value) -> bool {
    let tags = input.get("tags").or_else(|| input.get("Tags")).and_then(Value::as_object);
    operation.starts_with("Create") && tags.is_some_and(|tags| !tags.is_empty())
}

/// Roles and connectors that Lambda is handed. RunMicrovm passes the default connectors when none are named (observed).
fn passed_on(region: &str, operation: &str, input: &Value) -> Vec<Question> {
    let roles = ["buildRoleArn", "executionRoleArn", "OperatorRole"].iter().filter_map(|name| input.get(*name).and_then(Value::as_str));
    let mut questions: Vec<Question> = roles
        .map(|role| {
            let mut question = Question::new("iam:PassRole", role);
            question.context.set("iam:passedtoservice", LAMBDA);
            question
        })
        .collect();
    let runs = operation == "RunMicrovm";
    for (name, default) in
        [("ingressNetworkConnectors", ManagedConnector::HttpIngress), ("egressNetworkConnectors", ManagedConnector::InternetEgress)]
    {
        let given = input.get(name).and_then(Value::as_array).filter(|given| !given.is_empty());
        let arns: Vec<String> = match given {
            Some(given) => given.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            None if runs => vec![default.arn(region)],
            None => Vec::new(),
        };
        questions.extend(arns.into_iter().map(|arn| Question::new("lambda:PassNetworkConnector", arn)));
    }
    questions
}
