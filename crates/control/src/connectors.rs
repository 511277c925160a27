//! Network connectors a caller names: which ones a MicroVM may have together.

use emberbox_wire::arn::ManagedConnector;
use emberbox_wire::caller::Caller;
use emberbox_wire::connectors::{ComputeResourceType, ConnectorArn, ConnectorConfiguration, ConnectorState};

use crate::control::Core;
use crate::refusal::{Failure, Refusal, word};

/// The ingress connectors of a MicroVM; HTTP_INGRESS when none are given (documented).
pub(crate) fn ingress(region: &str, given: Option<&[String]>) -> Result<Vec<String>, Refusal> {
    let connectors = parse(region, given.unwrap_or_default())?;
    for connector in &connectors {
        match connector {
            ManagedConnector::AllIngress if connectors.len() > 1 => return Err(Refusal::AllIngressCombined),
            ManagedConnector::NoIngress if connectors.len() > 1 => return Err(Refusal::NoIngressCombined),
            ManagedConnector::InternetEgress => return Err(Refusal::ConnectorOfOtherKind(connector.arn(region), "ingress")),
            ManagedConnector::AllIngress | ManagedConnector::NoIngress | ManagedConnector::HttpIngress | ManagedConnector::ShellIngress => {
            }
        }
    }
    Ok(or_default(region, connectors, ManagedConnector::HttpIngress))
}

/// The egress connectors of a MicroVM or a build; INTERNET_EGRESS when none are given (documented).
pub(crate) fn egress(region: &str, given: Option<&[String]>) -> Result<Vec<String>, Refusal> {
    let connectors = parse(region, given.unwrap_or_default())?;
    match connectors.iter().find(|connector| **connector != ManagedConnector::InternetEgress) {
        Some(other) => Err(Refusal::ConnectorOfOtherKind(other.arn(region), "egress")),
        None => Ok(or_default(region, connectors, ManagedConnector::InternetEgress)),
    }
}

/// Refuses customers' connectors, with the reason that holds: one that is not there or not usable, or else that traffic does not go through any yet.
/// None is ever silently replaced by open egress.
pub(crate) async fn refuse_customers(core: &Core, caller: &Caller, given: Option<&[String]>) -> Result<(), Failure> {
    for arn in given.unwrap_or_default() {
        let Ok(parsed) = arn.parse::<ConnectorArn>() else { continue };
        let absent = || Refusal::UnknownConnector(arn.clone());
        let own = parsed.account == caller.account && parsed.region == core.config.region;
        let record = core.store.connector(parsed.id).await?.filter(|record| own && record.arn.account == caller.account);
        let record = record.filter(|record| record.state != ConnectorState::Deleted).ok_or_else(absent)?;
        let version = core.store.connector_version(record.arn.id, parsed.version.unwrap_or(record.version)).await?;
        let version = version.filter(|version| version.state != ConnectorState::Deleted).ok_or_else(absent)?;
        if record.state != ConnectorState::Active || version.state != ConnectorState::Active {
            return Err(Refusal::ConnectorBusy {
                arn: arn.clone(),
                why: format!("is {} and must be ACTIVE to be used", word(record.state)),
            }
            .into());
        }
        let ConnectorConfiguration::VpcEgressConfiguration(egress) = &version.configuration;
        if !egress.associated_compute_resource_types.iter().flatten().any(|kind| *kind == ComputeResourceType::MicroVm) {
            return Err(Refusal::ConnectorOfOtherCompute(arn.clone()).into());
        }
        return Err(Refusal::ConnectorNotBuilt(arn.clone()).into());
    }
    Ok(())
}

/// Whether a MicroVM with these ingress connectors serves HTTP.
pub(crate) fn serve_http(region: &str, ingress: &[String]) -> bool {
    has(region, ingress, ManagedConnector::HttpIngress)
}

/// Whether a MicroVM with these ingress connectors offers shells.
pub(crate) fn offer_shell(region: &str, ingress: &[String]) -> bool {
    has(region, ingress, ManagedConnector::ShellIngress)
}

fn has(region: &str, ingress: &[String], wanted: ManagedConnector) -> bool {
    let mut connectors = ingress.iter().filter_map(|arn| ManagedConnector::from_arn(arn, region));
    connectors.any(|connector| connector == wanted || connector == ManagedConnector::AllIngress)
}

fn parse(region: &str, arns: &[String]) -> Result<Vec<ManagedConnector>, Refusal> {
    let mut connectors = Vec::new();
    for arn in arns {
        if !arn.starts_with("arn:") || !arn.contains(":network-connector:") {
            return Err(Refusal::MalformedConnectorArn);
        }
        let connector = ManagedConnector::from_arn(arn, region).ok_or_else(|| Refusal::UnknownConnector(arn.clone()))?;
        if !connectors.contains(&connector) {
            connectors.push(connector);
        }
    }
    Ok(connectors)
}

fn or_default(region: &str, connectors: Vec<ManagedConnector>, default: ManagedConnector) -> Vec<String> {
    let connectors = if connectors.is_empty() { vec![default] } else { connectors };
    connectors.into_iter().map(|connector| connector.arn(region)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use ManagedConnector::{AllIngress, HttpIngress, InternetEgress, NoIngress, ShellIngress};

    const REGION: &str = "us-east-1";

    fn arns(connectors: &[ManagedConnector]) -> Vec<String> {
        connectors.iter().map(|connector| connector.arn(REGION)).collect()
    }

    #[test]
    fn none_given_means_the_defaults() {
        assert_eq!(ingress(REGION, None).unwrap(), arns(&[HttpIngress]));
        assert_eq!(egress(REGION, Some(&[])).unwrap(), arns(&[InternetEgress]));
    }

    #[test]
    fn combinations() {
        let both = arns(&[HttpIngress, ShellIngress]);
        assert_eq!(ingress(REGION, Some(&both)).unwrap(), both);
        assert!(serve_http(REGION, &both) && offer_shell(REGION, &both));
        assert!(serve_http(REGION, &arns(&[AllIngress])) && offer_shell(REGION, &arns(&[AllIngress])));
        assert!(!serve_http(REGION, &arns(&[NoIngress])) && !serve_http(REGION, &arns(&[ShellIngress])));
        assert_eq!(ingress(REGION, Some(&arns(&[AllIngress, HttpIngress]))), Err(Refusal::AllIngressCombined));
        assert_eq!(ingress(REGION, Some(&arns(&[HttpIngress, NoIngress]))), Err(Refusal::NoIngressCombined));
        assert!(matches!(ingress(REGION, Some(&arns(&[InternetEgress]))), Err(Refusal::ConnectorOfOtherKind(_, "ingress"))));
        assert!(matches!(egress(REGION, Some(&arns(&[HttpIngress]))), Err(Refusal::ConnectorOfOtherKind(_, "egress"))));
    }

    #[test]
    fn names_and_foreign_connectors() {
        assert_eq!(ingress(REGION, Some(&["HTTP_INGRESS".into()])), Err(Refusal::MalformedConnectorArn));
        let foreign = "arn:aws:lambda:us-east-1:123456789012:network-connector:mine".to_owned();
        assert_eq!(egress(REGION, Some(std::slice::from_ref(&foreign))), Err(Refusal::UnknownConnector(foreign)));
    }
}
