//! What differs between kinds of CPU: the machine's layout, how a kernel is entered, what makes up a vCPU's state. Each architecture is one module with
//! the same names in it; the rest of the crate knows none of them.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::*;

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the KVM engine is written for x86_64: another architecture is a sibling of `arch/x86_64` with the same names in it");
