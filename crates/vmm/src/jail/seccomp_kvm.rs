//! Numbers of the device calls that the filters let through (kernel: Documentation/virt/kvm/api.rst, include/uapi/linux/if_tun.h).

use kvm_bindings::{
    kvm_clock_data, kvm_cpuid2, kvm_debugregs, kvm_ioeventfd, kvm_irqchip, kvm_irqfd, kvm_lapic_state, kvm_mp_state, kvm_msr_list,
    kvm_msrs, kvm_pre_fault_memory, kvm_regs, kvm_sregs, kvm_userspace_memory_region, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use nix::{request_code_none as none, request_code_read as read, request_code_readwrite as both, request_code_write as write};

const KVM: u8 = 0xae;

/// Making, saving and restoring a machine.
pub(super) const MAIN_IOCTLS: &[u64] = &[
    none!(KVM, 0x00),                                            // KVM_GET_API_VERSION
    none!(KVM, 0x01),                                            // KVM_CREATE_VM
    both!(KVM, 0x02, size_of::<kvm_msr_list>()),                 // KVM_GET_MSR_INDEX_LIST
    none!(KVM, 0x03),                                            // KVM_CHECK_EXTENSION
    none!(KVM, 0x04),                                            // KVM_GET_VCPU_MMAP_SIZE
    both!(KVM, 0x05, size_of::<kvm_cpuid2>()),                   // KVM_GET_SUPPORTED_CPUID
    none!(KVM, 0x41),                                            // KVM_CREATE_VCPU
    write!(KVM, 0x46, size_of::<kvm_userspace_memory_region>()), // KVM_SET_USER_MEMORY_REGION
    none!(KVM, 0x47),                                            // KVM_SET_TSS_ADDR
    none!(KVM, 0x60),                                            // KVM_CREATE_IRQCHIP
    both!(KVM, 0x62, size_of::<kvm_irqchip>()),                  // KVM_GET_IRQCHIP
    read!(KVM, 0x63, size_of::<kvm_irqchip>()),                  // KVM_SET_IRQCHIP
    write!(KVM, 0x76, size_of::<kvm_irqfd>()),                   // KVM_IRQFD
    write!(KVM, 0x79, size_of::<kvm_ioeventfd>()),               // KVM_IOEVENTFD
    write!(KVM, 0x7b, size_of::<kvm_clock_data>()),              // KVM_SET_CLOCK
    read!(KVM, 0x7c, size_of::<kvm_clock_data>()),               // KVM_GET_CLOCK
    read!(KVM, 0x81, size_of::<kvm_regs>()),                     // KVM_GET_REGS
    write!(KVM, 0x82, size_of::<kvm_regs>()),                    // KVM_SET_REGS
    read!(KVM, 0x83, size_of::<kvm_sregs>()),                    // KVM_GET_SREGS
    write!(KVM, 0x84, size_of::<kvm_sregs>()),                   // KVM_SET_SREGS
    both!(KVM, 0x88, size_of::<kvm_msrs>()),                     // KVM_GET_MSRS
    write!(KVM, 0x89, size_of::<kvm_msrs>()),                    // KVM_SET_MSRS
    read!(KVM, 0x8e, size_of::<kvm_lapic_state>()),              // KVM_GET_LAPIC
    write!(KVM, 0x8f, size_of::<kvm_lapic_state>()),             // KVM_SET_LAPIC
    write!(KVM, 0x90, size_of::<kvm_cpuid2>()),                  // KVM_SET_CPUID2
    read!(KVM, 0x98, size_of::<kvm_mp_state>()),                 // KVM_GET_MP_STATE
    write!(KVM, 0x99, size_of::<kvm_mp_state>()),                // KVM_SET_MP_STATE
    read!(KVM, 0x9f, size_of::<kvm_vcpu_events>()),              // KVM_GET_VCPU_EVENTS
    write!(KVM, 0xa0, size_of::<kvm_vcpu_events>()),             // KVM_SET_VCPU_EVENTS
    read!(KVM, 0xa1, size_of::<kvm_debugregs>()),                // KVM_GET_DEBUGREGS
    write!(KVM, 0xa2, size_of::<kvm_debugregs>()),               // KVM_SET_DEBUGREGS
    none!(KVM, 0xa2),                                            // KVM_SET_TSC_KHZ
    none!(KVM, 0xa3),                                            // KVM_GET_TSC_KHZ
    read!(KVM, 0xa4, size_of::<kvm_xsave>()),                    // KVM_GET_XSAVE
    write!(KVM, 0xa5, size_of::<kvm_xsave>()),                   // KVM_SET_XSAVE
    read!(KVM, 0xa6, size_of::<kvm_xcrs>()),                     // KVM_GET_XCRS
    write!(KVM, 0xa7, size_of::<kvm_xcrs>()),                    // KVM_SET_XCRS
    none!(KVM, 0xad),                                            // KVM_KVMCLOCK_CTRL
    both!(KVM, 0xd5, size_of::<kvm_pre_fault_memory>()),         // KVM_PRE_FAULT_MEMORY
];

/// Running a guest.
pub(super) const VCPU_IOCTLS: &[u64] = &[none!(KVM, 0x80)]; // KVM_RUN

/// Setting up the tap for what a driver can take.
pub(super) const TUN_IOCTLS: &[u64] = &[
    write!(b'T', 208, size_of::<libc::c_uint>()), // TUNSETOFFLOAD
    write!(b'T', 216, size_of::<libc::c_int>()),  // TUNSETVNETHDRSZ
];
