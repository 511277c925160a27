//! The HTTPS endpoints of MicroVMs: one request after the other is accepted, authenticated, located, woken if need be, and relayed.
//!
//! Owns the listener, Emberbox's own certificate authority and every byte between a client and a guest's port. Knows MicroVMs only through
//! [`Traffic`](emberbox_control::traffic::Traffic). Must never buffer a body, ask anything of a guest for a client that is not authenticated, hand a
//! credential to an application, nor log tokens, headers or payloads.
//!
//! ```text
//! bind ─▶ accept ─▶ TLS (certificates, authority) ─▶ request ─▶ locate ─▶ authenticate ─▶ port ─▶ relay ─▶ body / tunnel
//!                                                       └──────────── error: every refusal and its answer ────────┘
//! ```
//!
//! Behaviour: `docs/aws-behaviour.md`, section Endpoint. HTTP/2, shells and TLS towards the application are later issues.
#![forbid(unsafe_code)]

mod accept;
mod activity;
mod authenticate;
mod authority;
mod bind;
mod body;
mod certificates;
mod config;
mod error;
mod headers;
mod linger;
mod locate;
mod relay;
mod request;
mod subprotocol;
mod tunnel;

pub use accept::{Claim, Ingress};
pub use authority::{Authority, AuthorityError};
pub use bind::BindError;
pub use config::{IngressConfig, IngressMode, Limits};
