//! The endpoints from outside: a TLS client that trusts the authority, an ingress, and guests that are plain TCP servers. Loopback and ephemeral
//! ports only.
#![allow(clippy::unwrap_used)]

mod answers;
mod hostile;
mod origins;
mod streaming;
mod support;
mod websocket;
