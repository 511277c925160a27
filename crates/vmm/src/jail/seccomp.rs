//! Which system calls each kind of thread may make. Anything else ends the process.
//!
//! The main thread's list is the process's: the others start under it and narrow it further. No list has a call that opens a file by name for use, makes a
//! process, a socket or a namespace, or maps memory as code.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Is, SeccompCondition as Condition, SeccompFilter,
    SeccompRule as Rule, TargetArch,
};

use super::seccomp_kvm::{MAIN_IOCTLS, TUN_IOCTLS, VCPU_IOCTLS};

/// A thread by what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ThreadKind {
    /// Control; makes the machine and all other threads.
    Main,
    Vcpu,
    /// Disks, network, entropy, balloon.
    Device,
}

/// What every thread needs: its locks, its allocator, its log, its end.
const COMMON: &[i64] = &[
    libc::SYS_futex,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_getrandom,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Files of disks and the tap, by descriptor.
const DEVICE: &[i64] = &[
    libc::SYS_poll,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_fallocate,
    libc::SYS_ftruncate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_statx,
];

/// What making a machine takes besides.
const MAIN: &[i64] = &[
    libc::SYS_ppoll,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_accept4,
    libc::SYS_setsockopt,
    libc::SYS_fcntl,
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_clone3,
    libc::SYS_prctl,
    libc::SYS_seccomp,
    libc::SYS_prlimit64,
];

/// Every thread starts as its parent's copy and then confines itself: these are needed until it has.
const START: &[i64] = &[libc::SYS_set_robust_list, libc::SYS_rseq, libc::SYS_prctl];

/// `IORING_ENTER_GETEVENTS`
const ENTER_GETEVENTS: u32 = 1;
/// `IORING_REGISTER_FILES`, `IORING_REGISTER_ENABLE_RINGS`: how a ring gets its files.
const RING_REGISTRATIONS: [u64; 2] = [2, 12];

const THREAD_FLAG: u64 = libc::CLONE_THREAD as u64;

/// Confines the calling thread for good.
pub(crate) fn confine(kind: ThreadKind) -> io::Result<()> {
    let program = program(kind).map_err(io::Error::other)?;
    seccompiler::apply_filter(&program).map_err(io::Error::other)?;
    if kind == ThreadKind::Main {
        // glibc then makes threads by clone, whose flags can be checked.
        let refused = BTreeMap::from([(libc::SYS_clone3, vec![])]);
        let action = SeccompAction::Errno(libc::ENOSYS as u32);
        let program = compile(refused, SeccompAction::Allow, action).map_err(io::Error::other)?;
        seccompiler::apply_filter(&program).map_err(io::Error::other)?;
    }
    Ok(())
}

fn program(kind: ThreadKind) -> Result<BpfProgram, seccompiler::BackendError> {
    compile(allowed(kind)?, SeccompAction::KillProcess, SeccompAction::Allow)
}

fn compile(
    rules: BTreeMap<i64, Vec<Rule>>,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, seccompiler::BackendError> {
    SeccompFilter::new(rules, otherwise, matched, TargetArch::x86_64)?.try_into()
}

fn allowed(kind: ThreadKind) -> Result<BTreeMap<i64, Vec<Rule>>, seccompiler::BackendError> {
    let lists: &[&[i64]] = match kind {
        ThreadKind::Main => &[COMMON, DEVICE, MAIN],
        ThreadKind::Vcpu => &[COMMON, START],
        ThreadKind::Device => &[COMMON, DEVICE, START],
    };
    let mut rules: BTreeMap<i64, Vec<Rule>> = lists.concat().into_iter().map(|call| (call, vec![])).collect();
    let ioctls = match kind {
        ThreadKind::Main => [MAIN_IOCTLS, VCPU_IOCTLS, TUN_IOCTLS].concat(),
        // A driver that starts its network card does so by a register, on a vCPU's thread.
        ThreadKind::Vcpu => [VCPU_IOCTLS, TUN_IOCTLS].concat(),
        ThreadKind::Device => vec![],
    };
    if !ioctls.is_empty() {
        let rule = |number: &u64| Rule::new(vec![Condition::new(1, Width::Dword, Is::Eq, *number)?]);
        rules.insert(libc::SYS_ioctl, ioctls.iter().map(rule).collect::<Result<_, _>>()?);
    }
    let not_code = || Rule::new(vec![Condition::new(2, Width::Dword, Is::MaskedEq(libc::PROT_EXEC as u64), 0)?]);
    // What a ring may do was settled when it was made.
    if kind != ThreadKind::Vcpu {
        let waiting_at_most = Condition::new(3, Width::Dword, Is::MaskedEq(!u64::from(ENTER_GETEVENTS) & u64::from(u32::MAX)), 0)?;
        rules.insert(libc::SYS_io_uring_enter, vec![Rule::new(vec![waiting_at_most])?]);
    }
    if kind == ThreadKind::Main {
        let rule = |operation: &u64| Rule::new(vec![Condition::new(1, Width::Dword, Is::Eq, *operation)?]);
        rules.insert(libc::SYS_io_uring_register, RING_REGISTRATIONS.iter().map(rule).collect::<Result<_, _>>()?);
    }
    rules.insert(libc::SYS_mmap, vec![not_code()?]);
    rules.insert(libc::SYS_mprotect, vec![not_code()?]);
    if kind == ThreadKind::Main {
        let thread = Rule::new(vec![Condition::new(0, Width::Qword, Is::MaskedEq(THREAD_FLAG), THREAD_FLAG)?])?;
        rules.insert(libc::SYS_clone, vec![thread]);
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NEVER: [i64; 16] = [
        libc::SYS_open,
        libc::SYS_openat,
        libc::SYS_openat2,
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_fork,
        libc::SYS_vfork,
        libc::SYS_socket,
        libc::SYS_connect,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_mount,
        libc::SYS_ptrace,
        libc::SYS_bpf,
        libc::SYS_io_uring_setup,
        libc::SYS_setuid,
    ];

    #[test]
    fn filters_compile_and_no_list_has_a_way_out() {
        for kind in [ThreadKind::Main, ThreadKind::Vcpu, ThreadKind::Device] {
            program(kind).unwrap();
            let rules = allowed(kind).unwrap();
            for call in NEVER {
                assert!(!rules.contains_key(&call), "{kind:?} may make call {call}");
            }
        }
    }

    #[test]
    fn threads_may_do_no_more_than_the_process() {
        let process = allowed(ThreadKind::Main).unwrap();
        for kind in [ThreadKind::Vcpu, ThreadKind::Device] {
            assert!(allowed(kind).unwrap().keys().all(|call| process.contains_key(call)));
        }
    }
}
