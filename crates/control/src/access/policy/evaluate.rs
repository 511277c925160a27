//! The decision: an explicit deny wins, an allow is needed, nothing is allowed by default (documented: "Policy evaluation logic").

use super::context::Context;
use super::document::{Document, Effect, Matcher, Statement};
use super::principal::{Actor, Named};

/// One question.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// `service:Operation`.
    pub action: &'a str,
    /// ARNs by which the thing is known, or `*` where the action has none. One that is allowed is enough, one that is denied is too.
    pub resources: &'a [String],
    pub context: &'a Context,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Allowed,
    /// No statement allows it.
    Implicit,
    /// A statement denies it.
    Explicit,
}

/// What identity policies say together.
pub fn decide<'d>(documents: impl IntoIterator<Item = &'d Document>, request: &Request<'_>) -> Decision {
    let action = request.action.to_ascii_lowercase();
    let statements = documents.into_iter().flat_map(|document| &document.statements);
    fold(statements.filter(|statement| applies(statement, &action, request)).map(|statement| statement.effect))
}

/// Whether some resource, in some circumstances, might be allowed: what decides about a thing that does not exist, so that those who may see its kind
/// are told that it is absent and others are not.
pub(crate) fn might_allow<'d>(documents: impl IntoIterator<Item = &'d Document>, action: &str) -> bool {
    let action = action.to_ascii_lowercase();
    let mut allowed = false;
    for statement in documents.into_iter().flat_map(|document| &document.statements) {
        if !matches(&statement.actions, &action, &Context::default()) {
            continue;
        }
        match statement.effect {
            Effect::Allow => allowed = true,
            Effect::Deny if statement.conditions.is_empty() && everything(statement) => return false,
            Effect::Deny => {}
        }
    }
    allowed
}

/// What a role's trust policy says of an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// The actor itself is named: nothing more is needed within its account.
    Closely,
    /// Its account is: the account's own policies decide.
    ByAccount,
    Not(Decision),
}

pub fn trusts(document: &Document, actor: &Actor<'_>, action: &str, context: &Context) -> Trust {
    let action = action.to_ascii_lowercase();
    let mut named = None;
    for statement in &document.statements {
        let Some(how) = statement.principals.as_ref().and_then(|principals| principals.name(actor)) else { continue };
        if !matches(&statement.actions, &action, context) || !hold(statement, context) {
            continue;
        }
        match statement.effect {
            Effect::Deny => return Trust::Not(Decision::Explicit),
            Effect::Allow => named = named.max(Some(how)),
        }
    }
    match named {
        Some(Named::Closely) => Trust::Closely,
        Some(Named::Account) => Trust::ByAccount,
        None => Trust::Not(Decision::Implicit),
    }
}

fn fold(effects: impl Iterator<Item = Effect>) -> Decision {
    let mut decision = Decision::Implicit;
    for effect in effects {
        match effect {
            Effect::Deny => return Decision::Explicit,
            Effect::Allow => decision = Decision::Allowed,
        }
    }
    decision
}

fn applies(statement: &Statement, action: &str, request: &Request<'_>) -> bool {
    matches(&statement.actions, action, request.context)
        && statement.resources.as_ref().is_some_and(|resources| concerns(resources, request))
        && hold(statement, request.context)
}

/// `NotResource` excepts a thing by whichever of its names it mentions.
fn concerns(resources: &Matcher, request: &Request<'_>) -> bool {
    let mentioned = |resource: &String| resources.patterns.iter().any(|pattern| pattern.matches(resource, request.context));
    request.resources.iter().any(mentioned) != resources.negated
}

fn matches(matcher: &Matcher, text: &str, context: &Context) -> bool {
    matcher.patterns.iter().any(|pattern| pattern.matches(text, context)) != matcher.negated
}

fn hold(statement: &Statement, context: &Context) -> bool {
    statement.conditions.iter().all(|condition| condition.holds(context))
}

/// Whether the statement is about every resource.
fn everything(statement: &Statement) -> bool {
    statement.resources.as_ref().is_some_and(|resources| !resources.negated && resources.patterns.iter().any(|p| p.is_everything()))
}
