//! HTTP/1.1 by hand: request heads, bodies with a length or in chunks, answers likewise.

mod body;
mod request;
mod response;

pub(crate) use body::Body;
pub(crate) use request::{HeadError, Request};
pub(crate) use response::{Chunks, write_answer, write_continue, write_head};
