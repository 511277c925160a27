//! The grammar, the operators, and properties of the decision.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::pattern::{Pattern, Syntax};
use super::*;

const IMAGE: &str = "arn:aws:lambda:us-east-1:123456789012:microvm-image:web";
const ALL: Syntax = Syntax { wildcards: true, variables: true };

fn document(statements: Value) -> Document {
    Document::identity(&json!({"Version": "2012-10-17", "Statement": statements}).to_string()).unwrap()
}

fn context(pairs: &[(&'static str, &[&str])]) -> Context {
    let mut context = Context::default();
    for (key, values) in pairs {
        context.set_all(*key, values.iter().map(|value| (*value).to_owned()).collect());
    }
    context
}

fn ask(documents: &[Document], action: &str, resource: &str, context: &Context) -> Decision {
    decide(documents, &Request { action, resources: &[resource.to_owned()], context })
}

fn allowed_when(condition: Value, context: &Context) -> bool {
    let document = document(json!({"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": condition}));
    ask(&[document], "lambda:RunMicrovm", IMAGE, context) == Decision::Allowed
}

#[test]
fn nothing_is_allowed_by_default_and_a_deny_wins() {
    let none = Context::default();
    let allow = document(json!([{"Effect": "Allow", "Action": ["lambda:Run*", "lambda:GetMicrovm"], "Resource": "*"}]));
    let deny = document(json!({"Effect": "Deny", "Action": "lambda:*", "Resource": [IMAGE]}));
    assert_eq!(ask(&[], "lambda:RunMicrovm", IMAGE, &none), Decision::Implicit);
    assert_eq!(ask(std::slice::from_ref(&allow), "lambda:RunMicrovm", IMAGE, &none), Decision::Allowed);
    assert_eq!(ask(std::slice::from_ref(&allow), "LAMBDA:runmicrovm", IMAGE, &none), Decision::Allowed, "actions have no case");
    assert_eq!(ask(std::slice::from_ref(&allow), "lambda:GetMicrovmImage", IMAGE, &none), Decision::Implicit);
    assert_eq!(ask(&[allow.clone(), deny.clone()], "lambda:RunMicrovm", IMAGE, &none), Decision::Explicit);
    assert_eq!(ask(&[deny, allow], "lambda:RunMicrovm", &format!("{IMAGE}2"), &none), Decision::Allowed);
}

#[test]
fn exceptions_are_the_rest() {
    let none = Context::default();
    let document = document(json!([
        {"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"},
        {"Effect": "Deny", "Action": "lambda:*", "NotResource": "arn:aws:lambda:*:*:microvm-image:web"},
    ]));
    let documents = std::slice::from_ref(&document);
    assert_eq!(ask(documents, "iam:CreateUser", "*", &none), Decision::Implicit);
    assert_eq!(ask(documents, "lambda:RunMicrovm", IMAGE, &none), Decision::Allowed);
    assert_eq!(ask(documents, "lambda:RunMicrovm", &IMAGE.replace("web", "other"), &none), Decision::Explicit);
    // A thing of two names is excepted by either.
    let names = [IMAGE.to_owned(), "arn:aws:lambda:us-east-1:123456789012:microvm:microvm-1".to_owned()];
    assert_eq!(decide(documents, &Request { action: "lambda:GetMicrovm", resources: &names, context: &none }), Decision::Allowed);
}

#[test]
fn what_does_not_exist_is_absent_for_those_who_might_see_it() {
    let documents = |statements| [document(statements)];
    let allow = json!({"Effect": "Allow", "Action": "lambda:Get*", "Resource": IMAGE});
    let deny = |resource: &str| json!({"Effect": "Deny", "Action": "lambda:*", "Resource": resource});
    assert!(might_allow(&documents(json!([allow])), "lambda:GetMicrovm"));
    assert!(!might_allow(&documents(json!([allow])), "lambda:RunMicrovm"));
    assert!(might_allow(&documents(json!([allow, deny(IMAGE)])), "lambda:GetMicrovm"));
    assert!(!might_allow(&documents(json!([allow, deny("*")])), "lambda:GetMicrovm"));
}

#[test]
fn text_operators() {
    let tagged = context(&[("aws:ResourceTag/Team", &["Blue"])]);
    let untagged = Context::default();
    for (condition, with, without) in [
        (json!({"StringEquals": {"aws:resourcetag/team": "Blue"}}), true, false),
        (json!({"StringEquals": {"aws:ResourceTag/Team": "B*"}}), false, false),
        (json!({"StringEquals": {"aws:ResourceTag/Team": ["Red", "Blue"]}}), true, false),
        (json!({"StringNotEquals": {"aws:ResourceTag/Team": ["Red", "Blue"]}}), false, true),
        (json!({"StringNotEquals": {"aws:ResourceTag/Team": "Red"}}), true, true),
        (json!({"StringEqualsIgnoreCase": {"aws:ResourceTag/Team": "BLUE"}}), true, false),
        (json!({"StringNotEqualsIgnoreCase": {"aws:ResourceTag/Team": "BLUE"}}), false, true),
        (json!({"StringLike": {"aws:ResourceTag/Team": "?l*"}}), true, false),
        (json!({"StringNotLike": {"aws:ResourceTag/Team": "?l*"}}), false, true),
        (json!({"StringEqualsIfExists": {"aws:ResourceTag/Team": "Blue"}}), true, true),
        (json!({"StringEqualsIfExists": {"aws:ResourceTag/Team": "Red"}}), false, true),
        (json!({"Null": {"aws:ResourceTag/Team": "true"}}), false, true),
        (json!({"Null": {"aws:ResourceTag/Team": false}}), true, false),
        (json!({"StringEquals": {"aws:ResourceTag/Team": "Blue"}, "Null": {"aws:ResourceTag/Team": "true"}}), false, false),
    ] {
        assert_eq!((allowed_when(condition.clone(), &tagged), allowed_when(condition.clone(), &untagged)), (with, without), "{condition}");
    }
}

#[test]
fn set_operators() {
    let keys = |values: &[&str]| context(&[("aws:TagKeys", values)]);
    let all = json!({"ForAllValues:StringEquals": {"aws:TagKeys": ["team", "stage"]}});
    let any = json!({"ForAnyValue:StringEquals": {"aws:TagKeys": ["team", "stage"]}});
    let none_of = json!({"ForAllValues:StringNotEquals": {"aws:TagKeys": ["secret"]}});
    for (values, in_all, in_any, avoids) in [
        (&["team"][..], true, true, true),
        (&["team", "stage"], true, true, true),
        (&["team", "secret"], false, true, false),
        (&["secret"], false, false, false),
        (&[], true, false, true),
    ] {
        let context = keys(values);
        let found = (allowed_when(all.clone(), &context), allowed_when(any.clone(), &context), allowed_when(none_of.clone(), &context));
        assert_eq!(found, (in_all, in_any, avoids), "{values:?}");
    }
}

#[test]
fn operators_of_other_types() {
    let context = context(&[
        ("aws:SourceIp", &["10.1.2.3"]),
        ("aws:CurrentTime", &["2026-07-01T12:00:00Z"]),
        ("aws:EpochTime", &["1782907200"]),
        ("aws:SecureTransport", &["false"]),
        ("aws:PrincipalArn", &["arn:aws:iam::123456789012:role/team/build"]),
        ("s3:max-keys", &["10"]),
    ]);
    for (condition, holds) in [
        (json!({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}), true),
        (json!({"IpAddress": {"aws:SourceIp": ["192.168.0.0/16", "10.1.2.3"]}}), true),
        (json!({"IpAddress": {"aws:SourceIp": "10.1.2.4/31"}}), false),
        (json!({"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}), false),
        (json!({"IpAddress": {"aws:SourceIp": "::/0"}}), false),
        (json!({"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}), true),
        (json!({"DateLessThan": {"aws:CurrentTime": "2026-07-01T12:00:01Z"}}), true),
        (json!({"DateGreaterThan": {"aws:CurrentTime": "2026-07-01"}}), true),
        (json!({"DateGreaterThan": {"aws:CurrentTime": 1782907200}}), false),
        (json!({"DateGreaterThanEquals": {"aws:CurrentTime": "2026-07-01T14:00:00+02:00"}}), true),
        (json!({"NumericLessThanEquals": {"s3:max-keys": 10}}), true),
        (json!({"NumericNotEquals": {"s3:max-keys": "10.0"}}), false),
        (json!({"NumericGreaterThan": {"aws:EpochTime": "1782907199"}}), true),
        (json!({"Bool": {"aws:SecureTransport": false}}), true),
        (json!({"Bool": {"aws:SecureTransport": "true"}}), false),
        (json!({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/*"}}), true),
        (json!({"ArnEquals": {"aws:PrincipalArn": "arn:aws:iam::123456789012:role/team/*"}}), true),
        (json!({"ArnLike": {"aws:PrincipalArn": "arn:aws:*:*:*:user/build"}}), false),
        (json!({"ArnNotLike": {"aws:PrincipalArn": "arn:aws:iam::*:user/*"}}), true),
        (json!({"StringLike": {"aws:PrincipalArn": "arn:aws:*:role/team/build"}}), true),
    ] {
        assert_eq!(allowed_when(condition.clone(), &context), holds, "{condition}");
    }
}

#[test]
fn variables() {
    let context = context(&[("aws:username", &["ada"]), ("aws:PrincipalTag/x", &["*"])]);
    let matches = |pattern: &str, text: &str| Pattern::compile(pattern, ALL).unwrap().matches(text, &context);
    assert!(matches("arn:aws:s3:::home/${aws:username}/*", "arn:aws:s3:::home/ada/x"));
    assert!(!matches("arn:aws:s3:::home/${aws:username}/*", "arn:aws:s3:::home/bob/x"));
    assert!(!matches("${aws:PrincipalTag/x}", "anything"), "what a variable holds is no wildcard");
    assert!(matches("${aws:PrincipalTag/team, 'none'}", "none"));
    assert!(!matches("${aws:PrincipalTag/team}", ""), "a variable without a value matches nothing");
    assert!(matches("a${*}b${?}${$}", "a*b?$"));
    // The older version has no variables.
    let old =
        Document::identity(r#"{"Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::${aws:username}"}}"#).unwrap();
    assert_eq!(ask(std::slice::from_ref(&old), "s3:GetObject", "arn:aws:s3:::ada", &context), Decision::Implicit);
    assert_eq!(ask(&[old], "s3:GetObject", "arn:aws:s3:::${aws:username}", &context), Decision::Allowed);
    assert!(
        document(json!({"Effect": "Allow", "Action": "*", "Resource": "arn:aws:s3:::${aws:ResourceTag/x}"})).mentions("aws:resourcetag/")
    );
}

#[test]
fn malformed_documents_are_refused_in_awss_words() {
    let statement = |members: Value| {
        let mut statement = json!({"Effect": "Allow", "Action": "s3:*", "Resource": "*"});
        for (name, value) in members.as_object().unwrap() {
            match value {
                Value::Null => drop(statement.as_object_mut().unwrap().remove(name)),
                value => statement[name] = value.clone(),
            }
        }
        json!({"Version": "2012-10-17", "Statement": [statement]})
    };
    for (document, message) in [
        (json!([]), "Syntax errors in policy."),
        (json!({"Version": "2012-10-17"}), "Syntax errors in policy."),
        (json!({"Version": "2012-10-18", "Statement": []}), "Policy document must be version 2012-10-17 or greater."),
        (statement(json!({"Effect": "allow"})), "Syntax errors in policy."),
        (statement(json!({"Extra": 1})), "Syntax errors in policy."),
        (statement(json!({"Action": null})), "Policy statement must contain actions."),
        (statement(json!({"Action": []})), "Policy statement must contain actions."),
        (statement(json!({"Action": "GetObject"})), "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."),
        (statement(json!({"Action": "s3:*", "NotAction": "iam:*"})), "Syntax errors in policy."),
        (statement(json!({"Resource": null})), "Policy statement must contain resources."),
        (statement(json!({"Resource": "bucket"})), "Resource bucket must be in ARN format or \"*\"."),
        (statement(json!({"Principal": "*"})), "Policy document should not specify a principal."),
        (statement(json!({"Condition": {"StringEqual": {"a:b": "c"}}})), "Unknown condition operator StringEqual"),
        (
            statement(json!({"Condition": {"StringEquals": {"b": "c"}}})),
            "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.",
        ),
        (statement(json!({"Condition": {"NumericEquals": {"a:b": "c"}}})), "The condition value c is not of its operator's type"),
        (statement(json!({"Condition": {"NullIfExists": {"a:b": "true"}}})), "Unknown condition operator NullIfExists"),
    ] {
        assert_eq!(Document::identity(&document.to_string()).unwrap_err().to_string(), message, "{document}");
    }
    let twice = json!({"Statement": [
        {"Sid": "x", "Effect": "Allow", "Action": "*", "Resource": "*"}, {"Sid": "x", "Effect": "Deny", "Action": "*", "Resource": "*"}]});
    assert_eq!(Document::identity(&twice.to_string()).unwrap_err(), MalformedPolicy::SameSid);
}

fn trust(statement: Value) -> Document {
    Document::trust(&json!({"Version": "2012-10-17", "Statement": [statement]}).to_string()).unwrap()
}

#[test]
fn trust_policies_name_services_accounts_and_identities() {
    let none = Context::default();
    let action = "sts:AssumeRole";
    let lambda = Actor::Service("lambda.amazonaws.com");
    let ada = Actor::Identity {
        account: "123456789012",
        arn: "arn:aws:iam::123456789012:user/ada",
        principal_arn: "arn:aws:iam::123456789012:user/ada",
    };
    let session = Actor::Identity {
        account: "123456789012",
        arn: "arn:aws:sts::123456789012:assumed-role/r/s",
        principal_arn: "arn:aws:iam::123456789012:role/r",
    };
    let allow =
        |principal: Value| trust(json!({"Effect": "Allow", "Principal": principal, "Action": ["sts:AssumeRole", "sts:TagSession"]}));
    let service = allow(json!({"Service": ["lambda.amazonaws.com"]}));
    assert_eq!(trusts(&service, &lambda, action, &none), Trust::Closely);
    assert_eq!(trusts(&service, &ada, action, &none), Trust::Not(Decision::Implicit));
    assert_eq!(trusts(&service, &Actor::Service("ec2.amazonaws.com"), action, &none), Trust::Not(Decision::Implicit));
    for account in ["123456789012", "arn:aws:iam::123456789012:root"] {
        assert_eq!(trusts(&allow(json!({"AWS": account})), &ada, action, &none), Trust::ByAccount);
    }
    assert_eq!(trusts(&allow(json!({"AWS": "arn:aws:iam::123456789012:user/ada"})), &ada, action, &none), Trust::Closely);
    assert_eq!(trusts(&allow(json!({"AWS": "arn:aws:iam::123456789012:role/r"})), &session, action, &none), Trust::Closely);
    assert_eq!(trusts(&allow(json!({"AWS": "210987654321"})), &ada, action, &none), Trust::Not(Decision::Implicit));
    let conditional = trust(json!({"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"aws:SourceAccount": "123456789012"}}}));
    assert_eq!(trusts(&conditional, &lambda, action, &none), Trust::Not(Decision::Implicit));
    assert_eq!(trusts(&conditional, &lambda, action, &context(&[("aws:SourceAccount", &["123456789012"])])), Trust::Closely);
}

#[test]
fn malformed_trust_policies() {
    let refused = |statement: Value| Document::trust(&json!({"Statement": statement}).to_string()).unwrap_err().to_string();
    let base = json!({"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"});
    let with = |name: &str, value: Value| {
        let mut statement = base.clone();
        statement[name] = value;
        statement
    };
    assert_eq!(refused(with("Resource", json!("*"))), "Has prohibited field Resource");
    assert_eq!(refused(with("Action", json!("s3:GetObject"))), "AssumeRole policy may only specify STS AssumeRole actions.");
    assert_eq!(refused(with("Principal", json!({"AWS": "ada"}))), "Invalid principal in policy: \"AWS\":\"ada\"");
    assert_eq!(refused(json!({"Effect": "Allow", "Action": "sts:AssumeRole"})), "Missing required field Principal");
}

fn any_statement() -> impl Strategy<Value = Value> {
    let action =
        prop_oneof![Just("*"), Just("lambda:*"), Just("lambda:RunMicrovm"), Just("lambda:Get*"), Just("s3:?etObject"), Just("iam:*")];
    let resource = prop_oneof![Just("*"), Just("arn:aws:lambda:*"), Just(IMAGE), Just("arn:aws:s3:::b/*")];
    let condition = prop_oneof![
        Just(json!({})),
        Just(json!({"StringEquals": {"aws:ResourceTag/x": "1"}})),
        Just(json!({"Null": {"aws:ResourceTag/x": "true"}})),
    ];
    (any::<bool>(), any::<bool>(), any::<bool>(), action, resource, condition).prop_map(
        |(allow, not_action, not_resource, action, resource, condition)| {
            json!({
                "Effect": if allow { "Allow" } else { "Deny" },
                if not_action { "NotAction" } else { "Action" }: action,
                if not_resource { "NotResource" } else { "Resource" }: resource,
                "Condition": condition,
            })
        },
    )
}

proptest! {
    /// The order of statements and their spread over documents change nothing; a deny is never undone; an allow is never enough against one.
    #[test]
    fn decisions_are_sets(statements in prop::collection::vec(any_statement(), 1..6), tagged in any::<bool>(), pick in any::<prop::sample::Index>()) {
        let context = if tagged { context(&[("aws:ResourceTag/x", &["1"])]) } else { Context::default() };
        let questions = [("lambda:RunMicrovm", IMAGE), ("lambda:GetMicrovm", "*"), ("s3:GetObject", "arn:aws:s3:::b/k"), ("iam:CreateUser", "*")];
        let (action, resource) = questions[pick.index(questions.len())];
        let together = ask(&[document(json!(statements))], action, resource, &context);
        let mut apart: Vec<Document> = statements.iter().cloned().map(document).collect();
        apart.reverse();
        prop_assert_eq!(ask(&apart, action, resource, &context), together);
        let each: Vec<Decision> = apart.iter().map(|one| ask(std::slice::from_ref(one), action, resource, &context)).collect();
        let expected = if each.contains(&Decision::Explicit) { Decision::Explicit }
            else if each.contains(&Decision::Allowed) { Decision::Allowed } else { Decision::Implicit };
        prop_assert_eq!(together, expected);
        // What cannot be allowed at all is not allowed here.
        if together == Decision::Allowed {
            prop_assert!(might_allow(&apart, action));
        }
    }

    /// Wildcards are those of a regular expression.
    #[test]
    fn globs_are_regular_expressions(pattern in "[ab*?é]{0,8}", text in "[abé]{0,8}") {
        let expression: String = pattern.chars().map(|c| match c { '*' => ".*".into(), '?' => ".".into(), c => regex::escape(&c.to_string()) }).collect();
        let expected = regex::Regex::new(&format!("^{expression}$")).unwrap().is_match(&text);
        prop_assert_eq!(Pattern::compile(&pattern, ALL).unwrap().matches(&text, &Context::default()), expected);
    }

    #[test]
    fn no_text_makes_it_panic(text in ".*", pattern in "[a$*?{}:, 'é]{0,16}", address in "[0-9a-f.:/]{0,20}") {
        let _ = Document::identity(&text);
        let _ = Document::trust(&text);
        let _ = Pattern::compile(&pattern, ALL).map(|compiled| compiled.matches(&pattern, &Context::default()));
        let value = json!({"IpAddress": {"aws:SourceIp": address}, "DateEquals": {"aws:CurrentTime": text}, "ArnLike": {"aws:PrincipalArn": pattern}});
        let statement = json!({"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": value});
        let _ = Document::identity(&json!({"Statement": statement}).to_string());
    }
}
