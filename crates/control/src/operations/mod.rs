//! One story per file: admission (pure), records, then the driver. Inputs have passed the model's validation; answers have the model's members.

pub(crate) mod create_microvm_auth_token;
pub(crate) mod create_microvm_image;
pub(crate) mod create_microvm_shell_auth_token;
pub(crate) mod create_network_connector;
pub(crate) mod delete_microvm_image;
pub(crate) mod delete_microvm_image_version;
pub(crate) mod delete_network_connector;
pub(crate) mod get_microvm;
pub(crate) mod get_microvm_image;
pub(crate) mod get_microvm_image_build;
pub(crate) mod get_microvm_image_version;
pub(crate) mod get_network_connector;
pub(crate) mod list_managed_microvm_image_versions;
pub(crate) mod list_managed_microvm_images;
pub(crate) mod list_microvm_image_builds;
pub(crate) mod list_microvm_image_versions;
pub(crate) mod list_microvm_images;
pub(crate) mod list_microvms;
pub(crate) mod list_network_connector_versions;
pub(crate) mod list_network_connectors;
pub(crate) mod list_tags;
pub(crate) mod resume_microvm;
pub(crate) mod run_microvm;
pub(crate) mod suspend_microvm;
pub(crate) mod tag_resource;
pub(crate) mod terminate_microvm;
pub(crate) mod untag_resource;
pub(crate) mod update_microvm_image;
pub(crate) mod update_microvm_image_version;
pub(crate) mod update_network_connector;

pub(crate) mod connector_lookup;
pub(crate) mod definition;
mod lookup;
