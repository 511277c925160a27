//! The other AWS services clients expect on the same endpoint: an S3 for the artifacts of images, STS for temporary credentials, and the IAM that
//! decides about all of them.
//!
//! Each serves what the work with MicroVMs needs and answers the rest with a clear error. Plugged into `emberbox_api::Server`.
#![forbid(unsafe_code)]

pub mod iam;
mod query;
pub mod s3;
pub mod sts;
