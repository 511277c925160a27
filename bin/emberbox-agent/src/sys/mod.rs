//! The fence around unsafe code: system calls that neither std nor nix wrap. Each module offers safe functions only.
#![allow(unsafe_code)]

pub(crate) mod clone;
pub(crate) mod entropy;
pub(crate) mod interface;
pub(crate) mod privilege;
