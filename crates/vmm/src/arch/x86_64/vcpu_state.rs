//! A vCPU's state in a snapshot, and the order in which KVM takes it back.

use kvm_bindings::{
    kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::VcpuFd;
use serde::{Deserialize, Serialize};

use super::cpuid::CpuProfile;
use super::{msrs, registers};
use crate::memory::GuestMemory;

/// No host has as many; bounds what a damaged file can ask for.
const MAX_MSRS: usize = 1024;

#[derive(Serialize, Deserialize)]
pub(crate) struct VcpuState {
    mp: kvm_mp_state,
    regs: kvm_regs,
    sregs: kvm_sregs,
    xsave: Box<kvm_xsave>,
    xcrs: kvm_xcrs,
    debug: kvm_debugregs,
    lapic: kvm_lapic_state,
    msrs: Vec<kvm_msr_entry>,
    events: kvm_vcpu_events,
    tsc_khz: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    #[error("could not give a vCPU its CPU profile")]
    Profile(#[source] kvm_ioctls::Error),
    #[error("the CPU profile does not fit KVM's table")]
    ProfileSize,
    #[error("could not read a vCPU's {0}")]
    Read(&'static str, #[source] kvm_ioctls::Error),
    #[error("could not set a vCPU's {0}")]
    Write(&'static str, #[source] kvm_ioctls::Error),
    #[error("KVM refuses model-specific register {index:#x}")]
    Msr { index: u32 },
    #[error("the list of model-specific registers is too long")]
    Msrs,
    #[error("could not prepare guest memory for the first instruction")]
    Memory(#[source] vm_memory::GuestMemoryError),
    #[error("the snapshot's clock runs at {saved} kHz, this host's at {here} kHz, and its CPU cannot scale")]
    Clock { saved: u32, here: u32 },
}

/// Two measurements of one clock differ by less than this part of it.
const CLOCK_TOLERANCE: u32 = 1000;

pub(super) fn reading(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> VcpuError {
    move |source| VcpuError::Read(what, source)
}

pub(super) fn writing(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> VcpuError {
    move |source| VcpuError::Write(what, source)
}

/// Gives vCPU `id` of `count` the CPU that guests see: before anything else.
pub(crate) fn set_profile(vcpu: &VcpuFd, profile: &CpuProfile, id: u8, count: u8) -> Result<(), VcpuError> {
    let leaves = profile.of_vcpu(id, count).map_err(|_| VcpuError::ProfileSize)?;
    vcpu.set_cpuid2(&leaves).map_err(VcpuError::Profile)
}

/// The state of a machine that has just been turned on: the first vCPU at the kernel's entry, the others waiting for it.
pub(crate) fn set_boot_state(vcpu: &VcpuFd, profile: &CpuProfile, id: u8, memory: &GuestMemory, entry: u64) -> Result<(), VcpuError> {
    msrs::write(vcpu, &msrs::at_boot())?;
    enable_extended_state(vcpu, profile)?;
    if id > 0 {
        return Ok(());
    }
    let mut sregs = vcpu.get_sregs().map_err(reading("special registers"))?;
    registers::special(memory, &mut sregs).map_err(VcpuError::Memory)?;
    vcpu.set_sregs(&sregs).map_err(writing("special registers"))?;
    vcpu.set_regs(&registers::general(entry)).map_err(writing("registers"))
}

/// As firmware may do, for a kernel that does it again. On an emulated host KVM would not learn that the guest did: QEMU's translator does not intercept
/// XSETBV, so KVM would go back to what it knows at the next entry, and the guest would die of its next signal.
fn enable_extended_state(vcpu: &VcpuFd, profile: &CpuProfile) -> Result<(), VcpuError> {
    if profile.xcr0() == 0 {
        return Ok(());
    }
    let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
    xcrs.xcrs[0].value = profile.xcr0();
    vcpu.set_xcrs(&xcrs).map_err(writing("extended control registers"))
}

impl VcpuState {
    /// Reads a stopped vCPU. `indices` are the registers that KVM wants saved.
    pub(crate) fn read(vcpu: &VcpuFd, indices: &[u32]) -> Result<Self, VcpuError> {
        // First: KVM may deliver what is pending while it reads this.
        let mp = vcpu.get_mp_state().map_err(reading("run state"))?;
        Ok(Self {
            mp,
            regs: vcpu.get_regs().map_err(reading("registers"))?,
            sregs: vcpu.get_sregs().map_err(reading("special registers"))?,
            xsave: Box::new(vcpu.get_xsave().map_err(reading("floating point registers"))?),
            xcrs: vcpu.get_xcrs().map_err(reading("extended control registers"))?,
            debug: vcpu.get_debug_regs().map_err(reading("debug registers"))?,
            lapic: vcpu.get_lapic().map_err(reading("interrupt controller"))?,
            msrs: msrs::read(vcpu, indices)?,
            events: vcpu.get_vcpu_events().map_err(reading("pending events"))?,
            tsc_khz: vcpu.get_tsc_khz().map_err(reading("clock rate"))?,
        })
    }

    /// Restores a vCPU whose profile is set. The order matters: the timer's deadline (among the registers) needs the APIC, events come after all that
    /// could raise them.
    pub(crate) fn write(&self, vcpu: &VcpuFd) -> Result<(), VcpuError> {
        if self.msrs.len() > MAX_MSRS {
            return Err(VcpuError::Msrs);
        }
        self.set_clock(vcpu)?;
        vcpu.set_mp_state(self.mp).map_err(writing("run state"))?;
        vcpu.set_regs(&self.regs).map_err(writing("registers"))?;
        vcpu.set_sregs(&self.sregs).map_err(writing("special registers"))?;
        set_xsave(vcpu, &self.xsave)?;
        // A CPU without XSAVE has none, and KVM refuses to set none.
        if self.xcrs.nr_xcrs > 0 {
            vcpu.set_xcrs(&self.xcrs).map_err(writing("extended control registers"))?;
        }
        vcpu.set_debug_regs(&self.debug).map_err(writing("debug registers"))?;
        vcpu.set_lapic(&self.lapic).map_err(writing("interrupt controller"))?;
        msrs::write(vcpu, &self.msrs)?;
        vcpu.set_vcpu_events(&self.events).map_err(writing("pending events"))?;
        // Tells the guest's watchdogs that it did not run. A guest that does not use the clock has nothing to be told.
        let _ = vcpu.kvmclock_ctrl();
        Ok(())
    }

    /// The guest goes on counting at the rate it knows.
    fn set_clock(&self, vcpu: &VcpuFd) -> Result<(), VcpuError> {
        let here = vcpu.get_tsc_khz().map_err(reading("clock rate"))?;
        if here.abs_diff(self.tsc_khz) <= self.tsc_khz / CLOCK_TOLERANCE {
            return Ok(());
        }
        vcpu.set_tsc_khz(self.tsc_khz).map_err(|_| VcpuError::Clock { saved: self.tsc_khz, here })
    }
}

#[allow(unsafe_code)]
fn set_xsave(vcpu: &VcpuFd, xsave: &kvm_xsave) -> Result<(), VcpuError> {
    // SAFETY: the kernel reads 4096 bytes, all that the structure has, unless the process has asked for larger state (AMX), which it never does.
    unsafe { vcpu.set_xsave(xsave) }.map_err(writing("floating point registers"))
}
