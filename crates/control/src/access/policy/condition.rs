//! The `Condition` element: operators, set operators and `IfExists` (documented: IAM user guide, "IAM JSON policy elements: Condition operators").

use std::cmp::Ordering;

use serde_json::Value;

use super::context::Context;
use super::document::{MalformedPolicy, texts_of_any};
use super::operand::{self, Network};
use super::pattern::{Pattern, Syntax};

/// One key under one operator. All of a statement's must hold.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    /// In lower case.
    key: String,
    set: SetOperator,
    if_exists: bool,
    test: Test,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SetOperator {
    /// None given; several values of a request are treated as `ForAnyValue` treats them (ours: AWS leaves it open).
    Single,
    ForAnyValue,
    ForAllValues,
}

#[derive(Debug, Clone)]
enum Test {
    Null(bool),
    /// Holds when the request's value matches one of the operands, or none of them when negated.
    Compare {
        negated: bool,
        operands: Vec<Operand>,
    },
}

#[derive(Debug, Clone)]
enum Operand {
    Text { pattern: Pattern, ignore_case: bool },
    Arn(Box<[Pattern; 6]>),
    Number { is: Relation, than: f64 },
    Date { is: Relation, than: i64 },
    Bool(bool),
    Network(Network),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// The family of an operator, without its negation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Text { wildcards: bool, ignore_case: bool },
    Arn,
    Number(Relation),
    Date(Relation),
    Bool,
    Network,
    Null,
}

impl Condition {
    /// All conditions of an operator's block: `{"StringEquals": {"key": ["value", ...]}}`.
    pub(super) fn parse(operator: &str, block: &Value, variables: bool) -> Result<Vec<Self>, MalformedPolicy> {
        let (set, rest) = match operator.split_once(':') {
            Some(("ForAnyValue", rest)) => (SetOperator::ForAnyValue, rest),
            Some(("ForAllValues", rest)) => (SetOperator::ForAllValues, rest),
            Some(_) => return Err(MalformedPolicy::Operator(operator.to_owned())),
            None => (SetOperator::Single, operator),
        };
        let (name, if_exists) = rest.strip_suffix("IfExists").map_or((rest, false), |name| (name, true));
        let (family, negated) = family(name).ok_or_else(|| MalformedPolicy::Operator(operator.to_owned()))?;
        if family == Family::Null && (if_exists || set != SetOperator::Single) {
            return Err(MalformedPolicy::Operator(operator.to_owned()));
        }
        let keys = block.as_object().ok_or(MalformedPolicy::Syntax)?;
        let condition = |(key, values): (&String, &Value)| {
            if !key.contains(':') {
                return Err(MalformedPolicy::Vendor);
            }
            let test = test(family, negated, &texts_of_any(values)?, variables)?;
            Ok(Self { key: key.to_ascii_lowercase(), set, if_exists, test })
        };
        keys.iter().map(condition).collect()
    }

    pub(super) fn holds(&self, context: &Context) -> bool {
        let values = context.get(&self.key);
        match &self.test {
            Test::Null(absent) => values.is_none() == *absent,
            Test::Compare { negated, operands } => {
                let holds = |value: &String| operands.iter().any(|operand| operand.matches(value, context)) != *negated;
                match (values, self.set) {
                    (None, _) if self.if_exists => true,
                    // Documented: a key that is not there fails a condition, and meets a negated one; ForAllValues has nothing to object to.
                    (None, SetOperator::Single) => *negated,
                    (None, SetOperator::ForAnyValue) => false,
                    (None, SetOperator::ForAllValues) => true,
                    (Some(values), SetOperator::ForAllValues) => values.iter().all(holds),
                    (Some(values), SetOperator::Single | SetOperator::ForAnyValue) => values.iter().any(holds),
                }
            }
        }
    }

    /// Whether its value depends on a key that begins with `prefix`.
    pub(super) fn mentions(&self, prefix: &str) -> bool {
        let in_operand = |operand: &Operand| match operand {
            Operand::Text { pattern, .. } => pattern.mentions(prefix),
            Operand::Arn(parts) => parts.iter().any(|part| part.mentions(prefix)),
            Operand::Number { .. } | Operand::Date { .. } | Operand::Bool(_) | Operand::Network(_) => false,
        };
        let in_test = match &self.test {
            Test::Null(_) => false,
            Test::Compare { operands, .. } => operands.iter().any(in_operand),
        };
        self.key.starts_with(prefix) || in_test
    }
}

fn family(name: &str) -> Option<(Family, bool)> {
    use Relation::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual};
    let text = |wildcards, ignore_case| Family::Text { wildcards, ignore_case };
    Some(match name {
        "StringEquals" => (text(false, false), false),
        "StringNotEquals" => (text(false, false), true),
        "StringEqualsIgnoreCase" => (text(false, true), false),
        "StringNotEqualsIgnoreCase" => (text(false, true), true),
        "StringLike" => (text(true, false), false),
        "StringNotLike" => (text(true, false), true),
        // Documented: the two ARN operators behave alike.
        "ArnEquals" | "ArnLike" => (Family::Arn, false),
        "ArnNotEquals" | "ArnNotLike" => (Family::Arn, true),
        "NumericEquals" => (Family::Number(Equal), false),
        "NumericNotEquals" => (Family::Number(Equal), true),
        "NumericLessThan" => (Family::Number(Less), false),
        "NumericLessThanEquals" => (Family::Number(LessOrEqual), false),
        "NumericGreaterThan" => (Family::Number(Greater), false),
        "NumericGreaterThanEquals" => (Family::Number(GreaterOrEqual), false),
        "DateEquals" => (Family::Date(Equal), false),
        "DateNotEquals" => (Family::Date(Equal), true),
        "DateLessThan" => (Family::Date(Less), false),
        "DateLessThanEquals" => (Family::Date(LessOrEqual), false),
        "DateGreaterThan" => (Family::Date(Greater), false),
        "DateGreaterThanEquals" => (Family::Date(GreaterOrEqual), false),
        "Bool" => (Family::Bool, false),
        "IpAddress" => (Family::Network, false),
        "NotIpAddress" => (Family::Network, true),
        "Null" => (Family::Null, false),
        _ => return None,
    })
}

fn test(family: Family, negated: bool, values: &[String], variables: bool) -> Result<Test, MalformedPolicy> {
    let boolean = |text: &String| text.to_ascii_lowercase().parse::<bool>().map_err(|_| MalformedPolicy::Value(text.clone()));
    if family == Family::Null {
        return match values {
            [value] => boolean(value).map(Test::Null),
            _ => Err(MalformedPolicy::Syntax),
        };
    }
    let operand = |text: &String| {
        let wrong = || MalformedPolicy::Value(text.clone());
        Ok(match family {
            Family::Text { wildcards, ignore_case } => {
                Operand::Text { pattern: Pattern::compile(text, Syntax { wildcards, variables })?, ignore_case }
            }
            Family::Arn => Operand::Arn(Box::new(arn(text, variables)?.ok_or_else(wrong)?)),
            Family::Number(is) => Operand::Number { is, than: operand::number(text).ok_or_else(wrong)? },
            Family::Date(is) => Operand::Date { is, than: operand::date(text).ok_or_else(wrong)? },
            Family::Bool => Operand::Bool(boolean(text)?),
            Family::Network => Operand::Network(Network::parse(text).ok_or_else(wrong)?),
            Family::Null => return Err(wrong()),
        })
    };
    Ok(Test::Compare { negated, operands: values.iter().map(operand).collect::<Result<_, _>>()? })
}

/// Each of an ARN's six parts is compared for itself, so that a `*` does not reach over a colon (documented). `*` alone is any ARN.
fn arn(text: &str, variables: bool) -> Result<Option<[Pattern; 6]>, MalformedPolicy> {
    let syntax = Syntax { wildcards: true, variables };
    let text = if text == "*" { "*:*:*:*:*:*" } else { text };
    let parts = split_arn(text).into_iter().map(|part| Pattern::compile(part, syntax)).collect::<Result<Vec<_>, _>>()?;
    Ok(parts.try_into().ok())
}

/// At the first five colons that do not stand in a variable.
fn split_arn(text: &str) -> Vec<&str> {
    let (mut parts, mut from, mut inside) = (Vec::new(), 0, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'$' if text[at..].starts_with("${") => inside = true,
            b'}' => inside = false,
            b':' if !inside && parts.len() < 5 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

impl Operand {
    fn matches(&self, value: &str, context: &Context) -> bool {
        match self {
            Self::Text { pattern, ignore_case: false } => pattern.matches(value, context),
            Self::Text { pattern, ignore_case: true } => pattern.matches_ignoring_case(value, context),
            Self::Arn(parts) => {
                let values: Vec<&str> = value.splitn(6, ':').collect();
                values.len() == parts.len() && parts.iter().zip(values).all(|(part, value)| part.matches(value, context))
            }
            Self::Number { is, than } => {
                operand::number(value).and_then(|number| number.partial_cmp(than)).is_some_and(|found| is.holds(found))
            }
            Self::Date { is, than } => operand::date(value).is_some_and(|date| is.holds(date.cmp(than))),
            Self::Bool(wanted) => value.eq_ignore_ascii_case(if *wanted { "true" } else { "false" }),
            Self::Network(network) => network.contains(value),
        }
    }
}

impl Relation {
    fn holds(self, found: Ordering) -> bool {
        match self {
            Self::Equal => found.is_eq(),
            Self::Less => found.is_lt(),
            Self::LessOrEqual => found.is_le(),
            Self::Greater => found.is_gt(),
            Self::GreaterOrEqual => found.is_ge(),
        }
    }
}
