//! The memory-mapped registers of one virtio device (virtio 1.2, 4.2.2) and its life:
//!
//! ```text
//!   reset ──acknowledge, driver, features──▶ set up ──DRIVER_OK──▶ working ──a rule is broken──▶ needs reset
//!     ▲                                        │                      │                             │
//!     └────────────────────────────── the driver writes status 0 ─────┴─────────────────────────────┘
//! ```
//! One lock guards a device with its registers: a vCPU's access and the worker's work exclude each other, and whoever holds the lock of a paused device
//! sees it at rest, with nothing under way. What a driver asks at every interrupt is outside of it ([`Interrupts`]): it need not wait for a disk.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED, VIRTIO_CONFIG_S_FEATURES_OK,
    VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{Queue, QueueT};
use vmm_sys_util::eventfd::EventFd;

use super::persist::QueueRecord;
use super::{Queues, TransportRecord, VirtioDevice, Wake};
use crate::memory::GuestRam;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
const VENDOR: u32 = u32::from_le_bytes(*b"EMBR");
const CONFIG: u64 = 0x100;
pub(crate) const QUEUE_NOTIFY: u64 = 0x50;
const INTERRUPT_STATUS: u64 = 0x60;
const INTERRUPT_ACKNOWLEDGE: u64 = 0x64;
const USED_RING: u32 = 1;
const CONFIG_CHANGED: u32 = 2;
/// Status bits that a driver sets on its way up.
const DRIVERS_OWN: u32 =
    VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FAILED;
const QUEUE_FEATURES: u64 = 1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// Why a device has interrupted: the registers of it that a driver reads and writes at each interrupt, while the device may be at work on something else.
#[derive(Default)]
pub(crate) struct Interrupts(AtomicU32);

impl Interrupts {
    fn add(&self, why: u32) {
        self.0.fetch_or(why, Ordering::SeqCst);
    }

    fn get(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }

    fn set(&self, status: u32) {
        self.0.store(status, Ordering::SeqCst);
    }

    /// A vCPU reads a register. False when it is none of these.
    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) -> bool {
        match <&mut [u8; 4]>::try_from(data) {
            Ok(word) if offset == INTERRUPT_STATUS => *word = self.get().to_le_bytes(),
            _ => return false,
        }
        true
    }

    /// A vCPU writes a register. False when it is none of these.
    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> bool {
        match <[u8; 4]>::try_from(data) {
            Ok(word) if offset == INTERRUPT_ACKNOWLEDGE => self.0.fetch_and(!u32::from_le_bytes(word), Ordering::SeqCst),
            _ => return false,
        };
        true
    }
}

/// A device in its slot.
pub(crate) struct Transport {
    device: Box<dyn VirtioDevice>,
    ram: Arc<GuestRam>,
    queues: Vec<Queue>,
    bells: Vec<EventFd>,
    line: EventFd,
    paused: bool,
    status: u32,
    features: u64,
    features_page: u32,
    driver_features_page: u32,
    queue_selected: u32,
    interrupts: Arc<Interrupts>,
    config_generation: u32,
}

impl Transport {
    /// A device at reset. It is made paused: the machine lets it go with all others.
    pub(crate) fn new(device: Box<dyn VirtioDevice>, ram: Arc<GuestRam>) -> io::Result<Self> {
        let queue = |size: &u16| Queue::new(*size).map_err(io::Error::other);
        let queues = device.queue_sizes().iter().map(queue).collect::<Result<Vec<_>, _>>()?;
        let bells = queues.iter().map(|_| EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)).collect::<Result<Vec<_>, _>>()?;
        let line = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        Ok(Self {
            device,
            ram,
            queues,
            bells,
            line,
            paused: true,
            status: 0,
            features: 0,
            features_page: 0,
            driver_features_page: 0,
            queue_selected: 0,
            interrupts: Arc::default(),
            config_generation: 0,
        })
    }

    /// Written to raise the device's interrupt: KVM listens.
    pub(crate) fn line(&self) -> &EventFd {
        &self.line
    }

    pub(crate) fn interrupts(&self) -> &Arc<Interrupts> {
        &self.interrupts
    }

    /// One a queue, rung by KVM when the driver writes the queue's number to [`QUEUE_NOTIFY`].
    pub(crate) fn bells(&self) -> &[EventFd] {
        &self.bells
    }

    pub(crate) fn host_fd(&self) -> Option<std::os::fd::RawFd> {
        self.device.host_fd()
    }

    /// Lets the device work on whatever woke it. A device at rest has nothing to do.
    pub(crate) fn serve(&mut self, wake: Wake) {
        if let Wake::Queue(index) = wake {
            // Taken first: a ring while the device works is seen afterwards. Nothing to read means that somebody has been here.
            let _ = self.bells[index].read();
        }
        if self.paused || !self.is_working() {
            return;
        }
        let (interrupts, line) = (&self.interrupts, &self.line);
        let tell = || raise(interrupts, line, USED_RING);
        let mut queues = Queues { queues: &mut self.queues, ram: &self.ram, bells: &self.bells, tell: &tell };
        match self.device.serve(wake, &mut queues) {
            Ok(served) => {
                if served.interrupt {
                    self.interrupt(USED_RING);
                }
                if served.more {
                    // What waits at the host's end does not ring again by itself: its device looks there, too, when its first queue's bell rings.
                    ring(&self.bells[if let Wake::Queue(index) = wake { index } else { 0 }]);
                }
            }
            Err(fault) => self.stop_working(&fault),
        }
    }

    fn is_working(&self) -> bool {
        self.status & (VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET) == VIRTIO_CONFIG_S_DRIVER_OK
    }

    fn stop_working(&mut self, fault: &dyn std::error::Error) {
        crate::log::device_stopped(self.device.kind(), fault);
        self.status |= VIRTIO_CONFIG_S_NEEDS_RESET;
        self.interrupt(CONFIG_CHANGED);
    }

    fn interrupt(&mut self, why: u32) {
        raise(&self.interrupts, &self.line, why);
    }

    /// Asks the guest, through a device that can, for so many of its pages.
    pub(crate) fn ask_for_pages(&mut self, pages: u32) -> bool {
        let asked = self.device.ask_for_pages(pages);
        if asked && self.is_working() {
            self.config_generation = self.config_generation.wrapping_add(1);
            self.interrupt(CONFIG_CHANGED);
        }
        asked
    }

    /// From here on the device neither works nor touches guest memory.
    pub(crate) fn pause(&mut self) -> io::Result<()> {
        self.paused = true;
        self.device.settle()
    }

    /// Lets the device work again, first on whatever came meanwhile.
    pub(crate) fn resume(&mut self) {
        self.paused = false;
        for bell in &self.bells {
            ring(bell);
        }
        if self.interrupts.get() != 0 {
            // What was raised just before a snapshot may not have reached the interrupt controller's state. Too often does no harm.
            ring(&self.line);
        }
    }

    /// A vCPU reads a register. Whatever the width and the offset, `data` is filled.
    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if self.interrupts.read(offset, data) {
            return;
        }
        if let Some(offset) = offset.checked_sub(CONFIG) {
            let config = usize::try_from(offset).ok().and_then(|offset| self.device.config().get(offset..)).unwrap_or_default();
            let length = config.len().min(data.len());
            data[..length].copy_from_slice(&config[..length]);
        } else if let Ok(word) = <&mut [u8; 4]>::try_from(data) {
            *word = self.register(offset).to_le_bytes();
        }
    }

    fn register(&self, offset: u64) -> u32 {
        match offset {
            0x00 => MAGIC,
            0x04 => VERSION,
            0x08 => self.device.kind(),
            0x0c => VENDOR,
            0x10 => match self.features_page {
                0 => self.offered() as u32,
                1 => (self.offered() >> 32) as u32,
                _ => 0,
            },
            0x34 => self.selected().map_or(0, |queue| queue.max_size().into()),
            0x44 => self.selected().is_some_and(|queue| queue.ready()).into(),
            0x70 => self.status,
            0xfc => self.config_generation,
            _ => 0,
        }
    }

    fn offered(&self) -> u64 {
        self.device.features() | QUEUE_FEATURES
    }

    fn selected(&self) -> Option<&Queue> {
        self.queues.get(self.queue_selected as usize)
    }

    /// A vCPU writes a register.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        if self.interrupts.write(offset, data) {
            return;
        }
        if let Some(offset) = offset.checked_sub(CONFIG) {
            if self.status & VIRTIO_CONFIG_S_DRIVER != 0 {
                self.device.write_config(offset, data);
            }
        } else if let Ok(word) = <[u8; 4]>::try_from(data) {
            self.set_register(offset, u32::from_le_bytes(word));
        }
    }

    fn set_register(&mut self, offset: u64, value: u32) {
        match offset {
            0x14 => self.features_page = value,
            0x20 => self.set_features(value),
            0x24 => self.driver_features_page = value,
            0x30 => self.queue_selected = value,
            // Rung by hand: where KVM rings the bell itself this never comes.
            QUEUE_NOTIFY => {
                if let Some(bell) = self.bells.get(value as usize) {
                    ring(bell);
                }
            }
            0x70 => self.set_status(value),
            _ => self.set_queue_register(offset, value),
        }
    }

    fn set_features(&mut self, value: u32) {
        if self.status & VIRTIO_CONFIG_S_FEATURES_OK != 0 {
            return;
        }
        match self.driver_features_page {
            0 => self.features = self.features & !u64::from(u32::MAX) | u64::from(value),
            1 => self.features = self.features & u64::from(u32::MAX) | u64::from(value) << 32,
            _ => {}
        }
    }

    /// Queues are set up once, between the choice of features and the start.
    fn set_queue_register(&mut self, offset: u64, value: u32) {
        if self.status & (VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK) != VIRTIO_CONFIG_S_FEATURES_OK {
            return;
        }
        let Some(queue) = self.queues.get_mut(self.queue_selected as usize) else { return };
        match offset {
            0x38 => queue.set_size(u16::try_from(value).unwrap_or(0)),
            0x44 => queue.set_ready(value == 1),
            0x80 => queue.set_desc_table_address(Some(value), None),
            0x84 => queue.set_desc_table_address(None, Some(value)),
            0x90 => queue.set_avail_ring_address(Some(value), None),
            0x94 => queue.set_avail_ring_address(None, Some(value)),
            0xa0 => queue.set_used_ring_address(Some(value), None),
            0xa4 => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }

    fn set_status(&mut self, value: u32) {
        if value == 0 {
            return self.reset();
        }
        let added = value & DRIVERS_OWN & !self.status;
        self.status |= added & !(VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
        let takes_what_is_offered = self.features & !self.offered() == 0 && self.features & 1 << VIRTIO_F_VERSION_1 != 0;
        if added & VIRTIO_CONFIG_S_FEATURES_OK != 0 && takes_what_is_offered {
            self.status |= VIRTIO_CONFIG_S_FEATURES_OK;
        }
        if added & VIRTIO_CONFIG_S_DRIVER_OK != 0 && self.status & VIRTIO_CONFIG_S_FEATURES_OK != 0 {
            self.status |= VIRTIO_CONFIG_S_DRIVER_OK;
            self.start();
        }
    }

    fn start(&mut self) {
        let event_index = self.features & 1 << VIRTIO_RING_F_EVENT_IDX != 0;
        for queue in &mut self.queues {
            queue.set_event_idx(event_index);
        }
        let memory = self.ram.memory();
        if self.queues.iter().any(|queue| queue.ready() && !queue.is_valid(memory)) {
            return self.stop_working(&virtio_queue::Error::QueueNotReady);
        }
        if let Err(error) = self.device.start(self.features) {
            return self.stop_working(&error);
        }
        // What the driver has put there before it said that it is ready.
        self.bells.iter().for_each(ring);
    }

    fn reset(&mut self) {
        self.device.stop();
        self.queues.iter_mut().for_each(QueueT::reset);
        self.status = 0;
        self.features = 0;
        self.features_page = 0;
        self.driver_features_page = 0;
        self.queue_selected = 0;
        self.interrupts.set(0);
    }

    pub(crate) fn save(&self) -> TransportRecord {
        TransportRecord {
            kind: self.device.kind(),
            status: self.status,
            features: self.features,
            features_page: self.features_page,
            driver_features_page: self.driver_features_page,
            queue_selected: self.queue_selected,
            interrupt_status: self.interrupts.get(),
            config_generation: self.config_generation,
            queues: self.queues.iter().map(QueueRecord::of).collect(),
            device: self.device.save(),
        }
    }

    /// Puts a device at reset into the state of a record. False when the record is not this device's, or one that no device could have left.
    pub(crate) fn load(&mut self, record: &TransportRecord) -> bool {
        let sizes = self.device.queue_sizes();
        let queues: Option<Vec<_>> = record.queues.iter().zip(sizes).map(|(queue, size)| queue.queue(*size)).collect();
        let Some(queues) = queues.filter(|queues| queues.len() == sizes.len() && record.queues.len() == sizes.len()) else { return false };
        let memory = self.ram.memory();
        let sane = record.kind == self.device.kind()
            && record.features & !self.offered() == 0
            && record.status & !(DRIVERS_OWN | VIRTIO_CONFIG_S_NEEDS_RESET) == 0
            && queues.iter().all(|queue| !queue.ready() || queue.is_valid(memory))
            && self.device.load(&record.device);
        if !sane {
            return false;
        }
        self.queues = queues;
        self.status = record.status;
        self.features = record.features;
        self.features_page = record.features_page;
        self.driver_features_page = record.driver_features_page;
        self.queue_selected = record.queue_selected;
        self.interrupts.set(record.interrupt_status);
        self.config_generation = record.config_generation;
        !self.is_working() || self.device.start(self.features).is_ok()
    }
}

fn raise(interrupts: &Interrupts, line: &EventFd, why: u32) {
    interrupts.add(why);
    ring(line);
}

/// A full counter has been rung already.
fn ring(bell: &EventFd) {
    let _ = bell.write(1);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::ram;
    use super::super::{DeviceRecord, Fault, Served};
    use super::*;

    /// Never done, wherever it is asked to look.
    struct Endless;

    impl VirtioDevice for Endless {
        fn kind(&self) -> u32 {
            4
        }
        fn features(&self) -> u64 {
            0
        }
        fn queue_sizes(&self) -> &'static [u16] {
            &[16, 16]
        }
        fn config(&self) -> &[u8] {
            &[]
        }
        fn start(&mut self, _features: u64) -> io::Result<()> {
            Ok(())
        }
        fn stop(&mut self) {}
        fn serve(&mut self, _wake: Wake, _queues: &mut Queues<'_>) -> Result<Served, Fault> {
            Ok(Served { interrupt: false, more: true })
        }
        fn save(&self) -> DeviceRecord {
            DeviceRecord::Entropy
        }
        fn load(&mut self, _record: &DeviceRecord) -> bool {
            true
        }
    }

    /// Frames that were left in the tap after a full turn stayed there until others came: a tap's readiness is an edge.
    #[test]
    fn a_device_that_gave_way_is_woken_again() {
        let mut transport = Transport::new(Box::new(Endless), ram()).unwrap();
        transport.resume();
        crate::fuzzing::set_up(&mut transport, false);
        let rung = |transport: &Transport| transport.bells().iter().map(|bell| bell.read().is_ok()).collect::<Vec<_>>();
        assert_eq!(rung(&transport), [true, true], "rung at the start");
        transport.serve(Wake::Host);
        assert_eq!(rung(&transport), [true, false]);
        transport.serve(Wake::Queue(1));
        assert_eq!(rung(&transport), [false, true]);
    }
}
