//! Every operation and its handler.

use std::sync::Arc;

use emberbox_wire::caller::Caller;
use emberbox_wire::error::ApiError;
use serde_json::Value;

use crate::control::Core;
use crate::operations as op;
use crate::refusal::Refusal;

pub(crate) async fn route(core: &Arc<Core>, caller: &Caller, operation: &str, input: Value) -> Result<Value, ApiError> {
    let answer = match operation {
        "CreateMicrovmImage" => op::create_microvm_image::handle(core, caller, input).await,
        "UpdateMicrovmImage" => op::update_microvm_image::handle(core, caller, input).await,
        "GetMicrovmImage" => op::get_microvm_image::handle(core, caller, input).await,
        "ListMicrovmImages" => op::list_microvm_images::handle(core, caller, input).await,
        "DeleteMicrovmImage" => op::delete_microvm_image::handle(core, caller, input).await,

        "GetMicrovmImageVersion" => op::get_microvm_image_version::handle(core, caller, input).await,
        "ListMicrovmImageVersions" => op::list_microvm_image_versions::handle(core, caller, input).await,
        "UpdateMicrovmImageVersion" => op::update_microvm_image_version::handle(core, caller, input).await,
        "DeleteMicrovmImageVersion" => op::delete_microvm_image_version::handle(core, caller, input).await,

        "GetMicrovmImageBuild" => op::get_microvm_image_build::handle(core, caller, input).await,
        "ListMicrovmImageBuilds" => op::list_microvm_image_builds::handle(core, caller, input).await,

        "ListManagedMicrovmImages" => op::list_managed_microvm_images::handle(core, caller, input).await,
        "ListManagedMicrovmImageVersions" => op::list_managed_microvm_image_versions::handle(core, caller, input).await,

        "RunMicrovm" => op::run_microvm::handle(core, caller, input).await,
        "GetMicrovm" => op::get_microvm::handle(core, caller, input).await,
        "ListMicrovms" => op::list_microvms::handle(core, caller, input).await,
        "SuspendMicrovm" => op::suspend_microvm::handle(core, caller, input).await,
        "ResumeMicrovm" => op::resume_microvm::handle(core, caller, input).await,
        "TerminateMicrovm" => op::terminate_microvm::handle(core, caller, input).await,

        "CreateMicrovmAuthToken" => op::create_microvm_auth_token::handle(core, caller, input).await,
        "CreateMicrovmShellAuthToken" => op::create_microvm_shell_auth_token::handle(core, caller, input).await,

        "CreateNetworkConnector" => op::create_network_connector::handle(core, caller, input).await,
        "UpdateNetworkConnector" => op::update_network_connector::handle(core, caller, input).await,
        "GetNetworkConnector" => op::get_network_connector::handle(core, caller, input).await,
        "ListNetworkConnectors" => op::list_network_connectors::handle(core, caller, input).await,
        "ListNetworkConnectorVersions" => op::list_network_connector_versions::handle(core, caller, input).await,
        "DeleteNetworkConnector" => op::delete_network_connector::handle(core, caller, input).await,

        "TagResource" => op::tag_resource::handle(core, caller, input).await,
        "UntagResource" => op::untag_resource::handle(core, caller, input).await,
        "ListTags" => op::list_tags::handle(core, caller, input).await,

        // Lambda Core's other half.
        runtimes if runtimes.contains("Runtime") => Err(Refusal::RuntimesNotBuilt.into()),
        unknown => Err(Refusal::UnknownOperation(unknown.to_owned()).into()),
    };
    answer.map_err(ApiError::from)
}
