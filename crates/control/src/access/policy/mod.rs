//! IAM policy documents and their evaluation, as pure functions.
//!
//! Owns the grammar (documented: IAM user guide, "Grammar of the IAM JSON policy language"), the condition operators and the rule that a deny wins and
//! that nothing is allowed by default. Must never look anything up: who asks, about what and in which circumstances comes in as a [`Request`]. Documents
//! are compiled once; an evaluation allocates only for policy variables.

mod condition;
mod context;
mod document;
mod evaluate;
mod operand;
mod pattern;
mod principal;
#[cfg(test)]
mod tests;

pub use context::Context;
pub use document::{Document, MalformedPolicy};
pub(crate) use evaluate::might_allow;
pub use evaluate::{Decision, Request, Trust, decide, trusts};
pub use principal::Actor;
