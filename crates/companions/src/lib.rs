//! The other AWS services clients expect on the same endpoint: an S3 for the artifacts of images, and the part of STS that says who one is.
//!
//! Each serves what the work with MicroVMs needs and answers the rest with a clear error. Plugged into `emberbox_api::Server`.
#![forbid(unsafe_code)]

pub mod s3;
pub mod sts;
