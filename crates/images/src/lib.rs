//! Artifact → image: what `CreateMicrovmImage` and `UpdateMicrovmImage` set going.
//!
//! [`Pipeline`] fetches a zip, unpacks it into a build context, has the host execute its Dockerfile in a builder machine and capture a snapshot, and
//! puts every failure into the words of `docs/aws-behaviour.md`. The bytes of an artifact are read here and never executed: the Dockerfile runs in a
//! machine of its own. [`artifact`] owns the reading of hostile zips.
#![forbid(unsafe_code)]

pub mod artifact;
mod definition;
pub mod failpoints;
mod pipeline;
mod reason;
mod source;
mod workspace;

pub use artifact::Limits;
pub use pipeline::{DEFAULT_BUILD_TIMEOUT, Pipeline, Settings};
pub use source::{ArtifactSource, FetchError, Reader};
