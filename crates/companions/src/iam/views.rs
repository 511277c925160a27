//! Records in the shapes of IAM's answers.

use std::collections::BTreeMap;

use emberbox_store::{IdentityRecord, IdentitySettings, ManagedPolicyRecord};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::query::{Xml, iso8601};

/// Documents are percent-encoded in answers (documented).
const DOCUMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub(super) fn document(text: &str) -> String {
    utf8_percent_encode(text, DOCUMENT).to_string()
}

pub(super) fn identity(xml: &mut Xml, record: &IdentityRecord, tags: &BTreeMap<String, String>) {
    let (name, id) = match record.settings {
        IdentitySettings::User => ("UserName", "UserId"),
        IdentitySettings::Role(_) => ("RoleName", "RoleId"),
    };
    xml.text("Path", &record.path).text(name, &record.name).text(id, &record.id.0).text("Arn", record.arn());
    xml.text("CreateDate", iso8601(record.created_at));
    if let IdentitySettings::Role(role) = &record.settings {
        xml.text("AssumeRolePolicyDocument", document(&role.trust));
        xml.text("MaxSessionDuration", role.max_session_seconds.to_string());
        if let Some(description) = &role.description {
            xml.text("Description", description);
        }
    }
    self::tags(xml, tags);
}

pub(super) fn tags(xml: &mut Xml, tags: &BTreeMap<String, String>) {
    if !tags.is_empty() {
        xml.members("Tags", tags, |member, (key, value)| {
            member.text("Key", key).text("Value", value);
        });
    }
}

pub(super) fn policy(xml: &mut Xml, record: &ManagedPolicyRecord, attachments: u32) {
    xml.text("PolicyName", &record.name)
        .text("PolicyId", &record.id)
        .text("Arn", record.arn())
        .text("Path", &record.path)
        .text("DefaultVersionId", format!("v{}", record.default_version))
        .text("AttachmentCount", attachments.to_string())
        .text("PermissionsBoundaryUsageCount", "0")
        .text("IsAttachable", "true")
        .text("CreateDate", iso8601(record.created_at))
        .text("UpdateDate", iso8601(record.updated_at));
    if let Some(description) = &record.description {
        xml.text("Description", description);
    }
}
