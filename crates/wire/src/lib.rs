//! AWS-shaped types: ids, ARNs, limits, errors and the members of the operations. No I/O, nothing of ours below it.
//!
//! The shapes, constraints and errors of the service are read from its published model (`models/`), which `emberbox-api` uses to route,
//! decode and validate; the structs here give the operations typed access to what validation let through.
#![forbid(unsafe_code)]

pub mod arn;
pub mod audit;
pub mod caller;
pub mod connectors;
pub mod error;
pub mod ids;
pub mod microvms;
pub mod sizes;

/// The service model of `lambda-microvms` 2025-09-09 as AWS publishes it (Apache-2.0, see `models/README.md`).
pub const LAMBDA_MICROVMS_MODEL: &str = include_str!("../models/lambda-microvms-2025-09-09.json");

/// The service model of `lambda-core` 2026-04-30, of which Emberbox serves the network connectors.
pub const LAMBDA_CORE_MODEL: &str = include_str!("../models/lambda-core-2026-04-30.json");

/// Every model requests are routed by, in this order.
pub const MODELS: [&str; 2] = [LAMBDA_MICROVMS_MODEL, LAMBDA_CORE_MODEL];
