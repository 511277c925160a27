//! The command line of a QEMU process: what the guest's machine consists of.

use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;

use emberbox_agent_protocol::GUEST_MAC;

use super::Accelerator;
use super::program::Program;
use crate::engine::{Boot, DiskFormat, DiskLayer, Restore, VmDisk, VmSpec};

/// Upper bound of TCG's translation cache: without it QEMU's own memory grows past 1 GB. A sixteenth of the guest's memory, within these bounds, keeps
/// what a compiler or a package manager runs translated.
const TRANSLATION_CACHE_MIB: std::ops::RangeInclusive<u32> = 128..=512;

/// The path that `private_memory.c` answers to.
const PRIVATE_MEMORY_PATH: &str = "/emberbox/memory";

/// The machine this file describes. Raised by every change that a guest can see, kernel arguments included: a snapshot fits the machine it was made on.
pub(super) const MACHINE: u32 = 2;

/// A command being put together, with the descriptors it inherits.
pub(super) struct QemuCommand {
    pub command: Command,
    pub inherited: Vec<OwnedFd>,
}

impl QemuCommand {
    /// Everything that boot and restore have in common. The order of devices is part of the machine: a snapshot only fits the same order.
    pub(super) fn new(program: &Program, spec: VmSpec, control: OwnedFd) -> Self {
        let mut command = Command::new(program.binary);
        command.env_clear().current_dir("/");
        let mut this = Self { command, inherited: Vec::new() };
        this.arg("-name", "emberbox")
            .flag("-nodefaults")
            .flag("-no-user-config")
            .flag("-no-reboot")
            .arg("-display", "none")
            .arg("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
            .arg("-machine", "microvm,acpi=on,rtc=on,pit=off,pic=off,memory-backend=ram,mem-merge=off")
            .arg("-m", &format!("{}M", spec.shape.memory_mib))
            .arg("-smp", &spec.shape.vcpus.to_string())
            .arg("-global", "virtio-mmio.force-legacy=false");
        let accelerator = match program.accelerator {
            Accelerator::Tcg => {
                let cache = (spec.shape.memory_mib / 16).clamp(*TRANSLATION_CACHE_MIB.start(), *TRANSLATION_CACHE_MIB.end());
                // Each CPU on a thread of its own would run code that another has replaced: decision 68.
                format!("tcg,thread=single,tb-size={cache}")
            }
            Accelerator::Kvm { .. } => "kvm".to_owned(),
        };
        this.arg("-accel", &accelerator).arg("-cpu", program.accelerator.cpu_model());
        this.control(control);
        for disk in spec.disks {
            this.disk(disk);
        }
        this.network(spec.tap);
        this.arg("-object", "rng-random,id=entropy,filename=/dev/urandom").arg("-device", "virtio-rng-device,rng=entropy");
        this
    }

    /// A fresh machine with its RAM in `boot.memory`.
    pub(super) fn boot(mut self, boot: Boot, kernel_arguments: &str, memory_mib: u32) -> Self {
        let (kernel, initramfs, memory) = (self.inherit(boot.kernel), self.inherit(boot.initramfs), self.inherit(boot.memory));
        self.arg("-kernel", &format!("/proc/self/fd/{kernel}"))
            .arg("-initrd", &format!("/proc/self/fd/{initramfs}"))
            .arg("-append", kernel_arguments)
            .memory(memory_mib, &format!("/proc/self/fd/{memory}"));
        self
    }

    /// A machine that waits for `migrate-incoming` from the returned descriptor.
    pub(super) fn restore(mut self, restore: Restore, library: OwnedFd, memory_mib: u32) -> (Self, i32) {
        let library = self.inherit(library);
        let base = self.inherit(restore.base);
        self.command.env("LD_PRELOAD", format!("/proc/self/fd/{library}")).env("EMBERBOX_MEMORY", base.to_string());
        if let Some((layer, runs)) = restore.layer {
            let (layer, runs) = (self.inherit(layer), self.inherit(runs));
            self.command.env("EMBERBOX_LAYER", layer.to_string()).env("EMBERBOX_LAYER_RUNS", runs.to_string());
        }
        let state = self.inherit(restore.state);
        self.memory(memory_mib, PRIVATE_MEMORY_PATH).arg("-incoming", "defer");
        (self, state)
    }

    fn control(&mut self, listener: OwnedFd) {
        let fd = self.inherit(listener);
        self.arg("-chardev", &format!("socket,id=control,fd={fd},server=on,wait=off")).arg("-mon", "chardev=control,mode=control");
        self.arg("-chardev", "stdio,id=console,signal=off").arg("-serial", "chardev:console");
    }

    fn memory(&mut self, mib: u32, path: &str) -> &mut Self {
        self.arg("-object", &format!("memory-backend-file,id=ram,size={mib}M,share=on,mem-path={path}"))
    }

    /// The layers from the last backing file up, then the device. A full host disk is an I/O error in the guest: QEMU's default would stop it for good. A guest's flushes do not reach the host's disk: a machine that runs is lost with the
    /// host's power anyway, and whoever keeps a disk beyond its machine (suspend, capture) syncs the file.
    fn disk(&mut self, disk: VmDisk) {
        let serial = disk.serial;
        let mut backing: Option<String> = None;
        let top = disk.layers.len();
        for (depth, DiskLayer { format, file }) in disk.layers.into_iter().rev().enumerate() {
            let read_only = if depth + 1 == top && !disk.read_only { "off" } else { "on" };
            let set = self.inherit(file);
            let (protocol, node) = (format!("{serial}{depth}-file"), format!("{serial}{depth}"));
            self.arg("-add-fd", &format!("fd={set},set={set}")).arg(
                "-blockdev",
                &format!("driver=file,node-name={protocol},filename=/dev/fdset/{set},read-only={read_only},locking=off,discard=unmap,cache.no-flush=on"),
            );
            let driver = match format {
                DiskFormat::Raw => format!("driver=raw,node-name={node},file={protocol},read-only={read_only},discard=unmap"),
                DiskFormat::Qcow2 => {
                    let backing = backing.as_ref().map(|node| format!(",backing={node}")).unwrap_or_default();
                    format!("driver=qcow2,node-name={node},file={protocol},read-only={read_only},discard=unmap{backing}")
                }
            };
            self.arg("-blockdev", &driver);
            backing = Some(node);
        }
        if let Some(node) = backing {
            self.arg("-device", &format!("virtio-blk-device,drive={node},serial={serial},werror=report,rerror=report"));
        }
    }

    fn network(&mut self, tap: OwnedFd) {
        let tap = self.inherit(tap);
        let mac = GUEST_MAC.map(|byte| format!("{byte:02x}")).join(":");
        // Nobody has to be told where a restored guest is now: its cell knows. The announcement would be the first thing the guest does.
        let device = format!("virtio-net-device,netdev=net,mac={mac},guest_announce=off");
        self.arg("-netdev", &format!("tap,id=net,fd={tap}")).arg("-device", &device);
    }

    /// The process gets the descriptor under the same number.
    fn inherit(&mut self, fd: impl Into<OwnedFd>) -> i32 {
        let fd = fd.into();
        let number = fd.as_raw_fd();
        self.inherited.push(fd);
        number
    }

    fn flag(&mut self, name: &str) -> &mut Self {
        self.command.arg(name);
        self
    }

    fn arg(&mut self, name: &str, value: &str) -> &mut Self {
        self.command.arg(name).arg(value);
        self
    }
}
