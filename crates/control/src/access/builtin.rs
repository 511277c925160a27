//! Policies that AWS owns and tutorials attach, with AWS's documents. They are part of the program, not of the records: nobody can change them.

/// One of `arn:aws:iam::aws:policy/...`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AwsManagedPolicy {
    pub name: &'static str,
    /// Begins and ends with `/`.
    pub path: &'static str,
    pub arn: &'static str,
    pub document: &'static str,
}

macro_rules! managed {
    ($path:literal, $name:literal) => {
        AwsManagedPolicy {
            name: $name,
            path: $path,
            arn: concat!("arn:aws:iam::aws:policy", $path, $name),
            document: include_str!(concat!("builtin/", $name, ".json")),
        }
    };
}

const ALL: &[AwsManagedPolicy] = &[
    managed!("/", "AdministratorAccess"),
    managed!("/", "AmazonS3FullAccess"),
    managed!("/", "AmazonS3ReadOnlyAccess"),
    managed!("/service-role/", "AWSLambdaBasicExecutionRole"),
    managed!("/", "AWSLambdaNetworkConnectorOperatorPolicy"),
    managed!("/", "AWSLambda_FullAccess"),
    managed!("/", "CloudWatchLogsFullAccess"),
    managed!("/", "IAMFullAccess"),
    managed!("/", "IAMReadOnlyAccess"),
    managed!("/", "PowerUserAccess"),
];

pub fn aws_managed_policies() -> &'static [AwsManagedPolicy] {
    ALL
}

pub fn aws_managed_policy(arn: &str) -> Option<&'static AwsManagedPolicy> {
    ALL.iter().find(|policy| policy.arn == arn)
}

#[cfg(test)]
mod tests {
    use super::super::policy::Document;
    use super::*;

    #[test]
    fn every_one_compiles() {
        for policy in ALL {
            assert!(Document::identity(policy.document).is_ok(), "{}", policy.name);
        }
        assert_eq!(
            aws_managed_policy("arn:aws:iam::aws:policy/AdministratorAccess").map(|policy| policy.name),
            Some("AdministratorAccess")
        );
    }
}
