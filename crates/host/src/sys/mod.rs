//! The fence around unsafe code and raw system calls of this crate. Each file wraps one facility of the kernel in a safe function.
#![allow(unsafe_code)]

pub(crate) mod memory;
pub(crate) mod namespace;
pub(crate) mod pidfd;
pub(crate) mod spawn;
pub(crate) mod tap;
pub(crate) mod tsc;
