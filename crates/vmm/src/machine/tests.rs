//! A machine that is snapshotted, restored, and snapshotted again before it has run: on a real /dev/kvm, with the guest's own kernel: by
//! name alone, as the `engine` suite does in the lab. Some hosts have a /dev/kvm that runs a few instructions and no stock kernel.
#![allow(clippy::unwrap_used, unsafe_code)]

use std::io::{Seek, Write};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kvm_ioctls::Kvm;
use serde_json::Value;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use super::*;
use crate::builder;
use crate::control::{BootFiles, Common, Descriptors, DiskSpec, MachineSpec, RestoreFiles, WorkingSet};
use crate::devices::DiskFormat;

const VCPUS: u8 = 2;
const MEMORY_MIB: u32 = 256;
const DISK_BYTES: u64 = 16 << 20;
const COMMAND_LINE: &str = "console=ttyS0 quiet reboot=t panic=-1 edd=off 8250.nr_uarts=1 random.trust_cpu=off";
/// An emulated machine that others use too.
const BOOTED_WITHIN: Duration = Duration::from_secs(300);
const DRIVER_OK: u32 = 4;
/// The devices without which the guest is not up: disk, network, entropy.
const NEEDED: usize = 3;

nix::ioctl_write_ptr_bad!(tun_set_interface, nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()), libc::ifreq);

#[test]
#[ignore = "needs a /dev/kvm that runs a stock kernel: the engine suite runs it in the lab"]
fn a_snapshot_of_a_restored_machine_is_the_snapshot_it_came_from() {
    let host = Host::new();
    let first = host.boot();
    let original = Snapshot::of(&first, host.memory.try_clone().unwrap());
    let mut restored = host.restore(&original);
    original.assert_equal(&restored, &host.state_of(&restored));

    // The same for a copy that has run: what it was is what comes back.
    let (clock, ran) = (Snapshot::clock(&host.state_of(&restored)), Duration::from_secs(2));
    restored.resume();
    std::thread::sleep(ran);
    restored.pause(&mut Steps::start()).unwrap();
    let later = Snapshot::of(&restored, whole_memory(&restored));
    assert!(Snapshot::clock(&later.state) >= clock + u64::try_from(ran.as_nanos()).unwrap() / 2, "the guest's clock ran while it did");
    assert!(!differences(&original.state, &later.state).is_empty(), "it did nothing");
    let again = host.restore(&later);
    later.assert_equal(&again, &host.state_of(&again));
}

/// What the machines have in common. All of them stay, paused: their threads end with the process alone.
struct Host {
    kvm: Kvm,
    base: PathBuf,
    memory: File,
    disk: File,
}

impl Host {
    fn new() -> Self {
        let base = std::env::var_os("EMBERBOX_BASE").map(PathBuf::from).expect("EMBERBOX_BASE names the managed base");
        let device = File::options().read(true).write(true).open("/dev/kvm").unwrap();
        Self { kvm: crate::open_kvm(device.into()), base, memory: file(u64::from(MEMORY_MIB) << 20), disk: file(DISK_BYTES) }
    }

    fn vm(&self) -> EmptyVm {
        EmptyVm::create(&self.kvm, VCPUS, &mut Steps::start()).unwrap()
    }

    fn spec() -> MachineSpec {
        let disk = DiskSpec { serial: "root".into(), read_only: false, layers: vec![DiskFormat::Raw] };
        MachineSpec { vcpus: VCPUS, memory_mib: MEMORY_MIB, mac: [2, 0, 0, 0, 0, 1], disks: vec![disk] }
    }

    fn descriptors<const N: usize>(&self, files: [File; N]) -> Descriptors {
        let mut fds: Vec<OwnedFd> = vec![file(0).into(), tap().into(), self.disk.try_clone().unwrap().into()];
        fds.extend(files.map(OwnedFd::from));
        Descriptors::new(fds)
    }

    /// A guest whose drivers have found their devices, paused.
    fn boot(&self) -> Machine {
        let open = |name| File::open(self.base.join(name)).unwrap();
        let files = self.descriptors([open("vmlinuz"), open("initramfs"), self.memory.try_clone().unwrap()]);
        let (common, files): (Common, BootFiles) = files.boot(Self::spec()).unwrap();
        let mut machine = builder::boot(self.vm(), common, files, COMMAND_LINE, &mut Steps::start()).unwrap();
        machine.resume();
        let began = Instant::now();
        while machine.bus().slots.iter().filter(|device| lock(device).save().status & DRIVER_OK != 0).count() < NEEDED {
            assert!(began.elapsed() < BOOTED_WITHIN, "the guest does not come up");
            std::thread::sleep(Duration::from_millis(100));
        }
        machine.pause(&mut Steps::start()).unwrap();
        machine
    }

    /// Restored and never let go.
    fn restore(&self, snapshot: &Snapshot) -> Machine {
        let state = snapshot.file.try_clone().unwrap();
        (&state).rewind().unwrap();
        let files = self.descriptors([snapshot.memory.try_clone().unwrap(), state]);
        let (common, files): (Common, RestoreFiles) = files.restore(Self::spec(), false, WorkingSet::Unknown).unwrap();
        builder::restore(self.vm(), common, files, &mut Steps::start()).unwrap().0
    }

    fn state_of(&self, machine: &Machine) -> Value {
        state(&state_file(machine))
    }
}

struct Snapshot {
    file: File,
    state: Value,
    memory: File,
}

impl Snapshot {
    fn of(machine: &Machine, memory: File) -> Self {
        let file = state_file(machine);
        Self { state: state(&file), file, memory }
    }

    fn clock(state: &Value) -> u64 {
        number(&state["vm"]["clock"], 0, 8)
    }

    /// All of the state and every byte of memory, but for what has to differ.
    fn assert_equal(&self, machine: &Machine, state: &Value) {
        let found = differences(&self.state, state);
        let values = |path: &str| [&self.state, state].map(|state| state.pointer(&format!("/{path}")).and_then(Value::as_u64).unwrap());
        let unexpected: Vec<_> = found.into_iter().map(|path| (values(&path), path)).filter(|(v, path)| !has_to_differ(path, *v)).collect();
        assert!(unexpected.is_empty(), "{unexpected:?}");
        assert!(Self::clock(state) >= Self::clock(&self.state), "the guest's clock goes on");
        let (before, after) = (generation(&self.memory), machine.ram().memory());
        let mut identifier = [0; GENERATION_BYTES];
        after.read_slice(&mut identifier, GuestAddress(layout::GENERATION_ID)).unwrap();
        assert_ne!(before, identifier, "every copy is of a generation of its own");
        let expected = self.memory_that_may_differ();
        let bytes = different_bytes(machine, &self.memory);
        let unexpected: Vec<_> = bytes.iter().filter(|at| !expected.iter().any(|range| range.contains(at))).collect();
        assert!(unexpected.is_empty(), "{unexpected:#x?}");
    }

    /// The generation identifier, and what KVM itself writes when a vCPU gets its registers: the wall clock, a version and a time, and into the records of
    /// stolen time that it has not run a vCPU.
    fn memory_that_may_differ(&self) -> Vec<Range<u64>> {
        const BY_KVM: [(&str, u64); 2] = [("0x4b564d00", 12), ("0x4b564d03", 64)];
        let of = |start, length| start..start + length;
        let vcpus = self.state["vcpus"].as_array().unwrap().iter();
        // The registers hold addresses; their low bits are flags.
        let records = vcpus.flat_map(|vcpu| BY_KVM.map(|(register, length)| of(vcpu["msrs"][register].as_u64().unwrap_or(0) & !3, length)));
        records.filter(|record| record.start != 0).chain([of(layout::GENERATION_ID, GENERATION_BYTES as u64)]).collect()
    }
}

/// Time goes on; a copy is told of its new generation; nothing else.
fn has_to_differ(path: &str, [before, after]: [u64; 2]) -> bool {
    /// Counters of time: the CPU's, and two of Hyper-V's, which KVM saves whether a guest uses them or not.
    const CLOCKS: [&str; 3] = ["0x10", "0x40000010", "0x40000020"];
    /// Only 32-bit programs of an AMD CPU use it, and only its lower half is kept there.
    const SYSENTER_STACK: &str = "0x175";
    /// Of a local APIC: the priority, which KVM works out of other registers when it is needed; what has come and not been taken; how far the timer has counted.
    const PRIORITY: Range<usize> = 0xa0..0xa4;
    const REQUESTED: Range<usize> = 0x200..0x280;
    const COUNT: Range<usize> = 0x390..0x394;
    let parts: Vec<_> = path.split('/').collect();
    let index = |part: &str| part.parse::<usize>().unwrap();
    match parts[..] {
        ["vm", "clock", ..] => true,
        ["vcpus", _, "lapic", byte] => [PRIORITY, REQUESTED, COUNT].iter().any(|range| range.contains(&index(byte))),
        ["vcpus", _, "msrs", SYSENTER_STACK] => after == before & u64::from(u32::MAX),
        ["vcpus", _, "msrs", register] => CLOCKS.contains(&register) && after > before,
        _ => false,
    }
}

/// A little-endian number within the bytes that a structure of KVM's is kept as.
fn number(bytes: &Value, at: usize, length: usize) -> u64 {
    (0..length).rev().fold(0, |sum, index| sum << 8 | bytes[at + index].as_u64().unwrap())
}

/// Where two states differ: names and indices, with slashes between them.
fn differences(first: &Value, second: &Value) -> Vec<String> {
    fn walk(path: &str, first: &Value, second: &Value, found: &mut Vec<String>) {
        let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
        match (first, second) {
            (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
                one.iter().zip(other).enumerate().for_each(|(index, (one, other))| walk(&below(&index.to_string()), one, other, found));
            }
            (Value::Object(one), Value::Object(other)) if one.len() == other.len() => {
                one.iter().for_each(|(name, value)| walk(&below(name), value, other.get(name).unwrap_or(&Value::Null), found));
            }
            _ if first == second => {}
            _ => found.push(path.to_owned()),
        }
    }
    let mut found = Vec::new();
    walk("", first, second, &mut found);
    found
}

fn state_file(machine: &Machine) -> File {
    let file = file(0);
    machine.save(&file).unwrap();
    file
}

fn state(file: &File) -> Value {
    let mut file = file.try_clone().unwrap();
    file.rewind().unwrap();
    let mut state = serde_json::to_value(snapshot::read(&file).unwrap()).unwrap();
    for vcpu in state["vcpus"].as_array_mut().unwrap() {
        let registers = vcpu["msrs"].as_array().unwrap().iter();
        vcpu["msrs"] = registers.map(|msr| (format!("{:#x}", number(msr, 0, 4)), Value::from(number(msr, 8, 8)))).collect();
    }
    state
}

fn generation(memory: &File) -> [u8; GENERATION_BYTES] {
    let mut bytes = [0; GENERATION_BYTES];
    memory.read_exact_at(&mut bytes, layout::GENERATION_ID).unwrap();
    bytes
}

/// Each page of a machine of one piece of memory, with its address.
fn pages(machine: &Machine) -> impl Iterator<Item = (u64, Vec<u8>)> + '_ {
    let memory = machine.ram().memory();
    assert_eq!(memory.iter().map(|region| region.len()).collect::<Vec<_>>(), [u64::from(MEMORY_MIB) << 20]);
    (0..u64::from(MEMORY_MIB) << 20).step_by(4096).map(|at| {
        let mut page = vec![0; 4096];
        memory.read_slice(&mut page, GuestAddress(at)).unwrap();
        (at, page)
    })
}

/// Where memory differs from a file.
fn different_bytes(machine: &Machine, file: &File) -> Vec<u64> {
    let mut other = vec![0; 4096];
    let mut found = Vec::new();
    for (at, page) in pages(machine) {
        file.read_exact_at(&mut other, at).unwrap();
        if page != other {
            found.extend((at..).zip(page.iter().zip(&other)).filter(|(_, (one, other))| one != other).map(|(at, _)| at));
        }
    }
    found
}

/// A copy of a machine's memory, as a snapshot has it.
fn whole_memory(machine: &Machine) -> File {
    let mut memory = file(u64::from(MEMORY_MIB) << 20);
    for (at, page) in pages(machine).filter(|(_, page)| page.iter().any(|byte| *byte != 0)) {
        memory.write_all_at(&page, at).unwrap();
    }
    memory.flush().unwrap();
    memory
}

fn file(bytes: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(bytes).unwrap();
    file
}

/// A tap under any name, which goes with its descriptor.
fn tap() -> File {
    let tap = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    // SAFETY: all zeroes are a request for any name.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one request, which outlives the call.
    unsafe { tun_set_interface(std::os::fd::AsRawFd::as_raw_fd(&tap), &request).unwrap() };
    tap
}
