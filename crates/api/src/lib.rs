//! The public HTTP front of the daemon: signatures, service routing, decoding, validation, the error envelope and request ids.
//!
//! Owns everything between a TCP connection and one call of [`Operations`]: who signed ([`sigv4`]), which service and operation is meant
//! ([`routing`]), whether the members are what the service model allows ([`decode`], [`validate`]), and how the answer looks ([`envelope`]).
//! It never decides what an operation does, never keeps state beyond a connection, and never logs a header, a token or a body.
//!
//! ```text
//! connection ─▶ server ─▶ front: /health | scope s3 ─▶ StreamingService (verifies itself)
//!                                └─▶ body, sigv4 ─▶ sts, iam ─▶ QueryService
//!                                                └▶ lambda ─▶ routing ─▶ decode ─▶ validate ─▶ Operations (authorize, call) ─▶ envelope
//! ```
#![forbid(unsafe_code)]

pub mod catalogue;
pub mod decode;
pub mod envelope;
mod front;
pub mod model;
pub mod routing;
mod s3_names;
pub mod server;
pub mod services;
pub mod sigv4;
mod trace;
pub mod validate;

pub use server::{Server, ServerConfig};
pub use services::{
    BoxError, ClientAddress, CredentialError, Credentials, Operations, QueryError, QueryService, ResponseBody, StreamingService,
};
pub use trace::CallNote;
