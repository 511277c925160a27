//! The outer machine: a QEMU process that emulates an AMD CPU with virtualization.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::host;
use super::ingredients::Ingredients;
use super::ports::{Listeners, NAMES};

/// All there is of AMD-V under TCG. Emulated AVX only slows the libraries that choose it, and five-level page tables every walk.
const CPU: &str = "max,+svm,la57=off,avx=off";
/// The translator's cache: a kernel, another one beneath it, QEMU and Python.
const TRANSLATION_CACHE_MIB: u32 = 512;
/// The counter needs no calibration, which hangs on busy hosts, and no watchdog, which has no other clock to compare it with and takes jiffies instead.
/// Address space randomization makes the translator start over with every process. What does not speculate needs no mitigations.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet panic=-1 tsc=reliable norandmaps nokaslr mitigations=off init_on_alloc=0 edd=off 8250.nr_uarts=1 cryptomgr.notests";
const SHOWN_CONSOLE_LINES: usize = 50;

pub(super) struct Hardware<'a> {
    pub ingredients: &'a Ingredients,
    pub root: &'a RootDisk,
    pub files: &'a Path,
    pub memory_mib: u32,
    pub cpus: u32,
}

/// What a run writes, above the root that all share. It lives through power cuts and reboots.
pub(super) struct RootDisk {
    layer: PathBuf,
    below: PathBuf,
}

impl RootDisk {
    pub(super) fn above(below: &Path, scratch: &Path) -> anyhow::Result<Self> {
        let this = Self { layer: scratch.join("root.qcow2"), below: fs::canonicalize(below).context("finding the lab's root disk")? };
        this.reset()?;
        Ok(this)
    }

    /// A fresh machine's disk.
    pub(super) fn reset(&self) -> anyhow::Result<()> {
        let status = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
            .args([&self.below, &self.layer])
            .status()
            .context("running qemu-img (qemu-utils)")?;
        if !status.success() {
            bail!("qemu-img could not make {}", self.layer.display());
        }
        Ok(())
    }
}

/// A running machine. Dropping it is pulling the plug.
pub(super) struct Machine(Child);

impl Machine {
    pub(super) fn start(hardware: &Hardware, ports: &Listeners, scratch: &Path) -> anyhow::Result<Self> {
        // Whoever kills us with -9 takes the machine along.
        let mut qemu = Command::new("setpriv");
        let emulator = &hardware.ingredients.emulator;
        qemu.args(["--pdeathsig", "KILL"]).arg(emulator.join("ld-linux-x86-64.so.2")).arg("--library-path").arg(emulator.join("lib"));
        qemu.arg(emulator.join("qemu-system-x86_64")).arg("-L").arg(emulator.join("share"));
        qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        qemu.args(["-machine", "microvm,acpi=on,rtc=on,pit=off,pic=off", "-global", "virtio-mmio.force-legacy=false"]);
        qemu.args([
            "-accel",
            &format!("tcg,thread=single,tb-size={TRANSLATION_CACHE_MIB}"),
            "-cpu",
            CPU,
            "-smp",
            &hardware.cpus.to_string(),
        ]);
        qemu.args(["-m", &format!("{}M", hardware.memory_mib)]);
        qemu.arg("-kernel").arg(&hardware.ingredients.kernel).arg("-initrd").arg(&hardware.ingredients.initramfs);
        qemu.args(["-append", &format!("{KERNEL_ARGUMENTS} tsc_early_khz={}", host::measure_khz())]);
        qemu.args(["-chardev", &format!("file,id=console,path={}", console_log(scratch).display()), "-serial", "chardev:console"]);
        qemu.args(["-netdev", "user,id=net", "-device", "virtio-net-device,netdev=net", "-device", "virtio-rng-device"]);
        disk(&mut qemu, "lab-root", &hardware.root.layer, "qcow2", false);
        disk(&mut qemu, "lab-files", hardware.files, "raw", true);
        if let Some(base) = &hardware.ingredients.base {
            disk(&mut qemu, "lab-base", base, "raw", true);
        }
        qemu.args(["-device", "virtio-serial-device"]);
        for name in NAMES {
            qemu.args(["-chardev", &format!("socket,id={name},path={}", ports.socket(name).display())]);
            qemu.args(["-device", &format!("virtserialport,chardev={name},name={name}")]);
        }
        let child = qemu.stdin(Stdio::null()).spawn().context("starting the lab's QEMU by setpriv (util-linux)")?;
        Ok(Self(child))
    }

    pub(super) fn has_ended(&mut self) -> bool {
        // An error says that there is no such process any more.
        self.0.try_wait().map_or(true, |status| status.is_some())
    }

    /// The machine turns itself off within `patience`, or is turned off.
    pub(super) fn end(mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline && !self.has_ended() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // An error says that it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Commas in a path would be options to QEMU. Flushes stay in the host's memory: a run's disk is not worth the host's wait, and for the machine's own
/// power cut QEMU's process is the disk.
fn disk(qemu: &mut Command, serial: &str, path: &Path, format: &str, read_only: bool) {
    let path = path.to_string_lossy().replace(',', ",,");
    let read_only = if read_only { "on" } else { "off" };
    qemu.args(["-drive", &format!("file={path},if=none,id={serial},format={format},readonly={read_only},cache=unsafe")]);
    qemu.args(["-device", &format!("virtio-blk-device,drive={serial},serial={serial}")]);
}

pub(super) fn console_log(scratch: &Path) -> PathBuf {
    scratch.join("console.log")
}

pub(super) fn last_console_lines(scratch: &Path) -> String {
    let log = fs::read(console_log(scratch)).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_CONSOLE_LINES)..].iter().map(|line| format!("    {line}\n")).collect()
}
