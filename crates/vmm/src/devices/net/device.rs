//! The card as the guest sees it.

use std::io;
use std::os::fd::{OwnedFd, RawFd};

use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_TSO4,
    VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF,
};
use virtio_queue::QueueT;

use super::receive::Receiver;
use super::tap::{HEADER, MAX_FRAME, Tap};
use crate::devices::virtio::{DeviceRecord, Fault, Queues, Served, VirtioDevice, Wake, serve_chains};

const QUEUES: [u16; 2] = [256, 256];
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const FEATURES: [u32; 8] = [
    VIRTIO_NET_F_CSUM,
    VIRTIO_NET_F_GUEST_CSUM,
    VIRTIO_NET_F_MAC,
    VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_HOST_TSO4,
    VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_MRG_RXBUF,
];

/// The network card.
pub(crate) struct Net {
    tap: Tap,
    mac: [u8; 6],
    receiver: Receiver,
    merge: bool,
}

impl Net {
    pub(crate) fn new(tap: OwnedFd, mac: [u8; 6]) -> io::Result<Self> {
        Ok(Self::with(Tap::new(tap, true)?, mac))
    }

    /// On any descriptor instead of a tap, for fuzzing.
    pub(crate) fn on(stand_in: OwnedFd, mac: [u8; 6]) -> io::Result<Self> {
        Ok(Self::with(Tap::new(stand_in, false)?, mac))
    }

    fn with(tap: Tap, mac: [u8; 6]) -> Self {
        Self { tap, mac, receiver: Receiver::new(), merge: false }
    }

    fn transmit(&mut self, queues: &mut Queues<'_>) -> Result<Served, Fault> {
        serve_chains(queues, TRANSMIT, |segments, _| {
            if (HEADER..=MAX_FRAME).contains(&segments.readable_bytes()) {
                self.tap.send(segments.readable());
            }
            Ok(0)
        })
    }

    fn receive(&mut self, queues: &mut Queues<'_>) -> Result<Served, Fault> {
        let memory = queues.ram.memory();
        match &mut queues.queues[RECEIVE] {
            queue if queue.ready() => self.receiver.serve(&mut self.tap, queue, memory, self.merge),
            _ => Ok(Served::default()),
        }
    }
}

impl VirtioDevice for Net {
    fn kind(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        FEATURES.iter().fold(0, |features, bit| features | 1 << bit)
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &QUEUES
    }

    fn config(&self) -> &[u8] {
        &self.mac
    }

    fn start(&mut self, features: u64) -> io::Result<()> {
        self.merge = features & 1 << VIRTIO_NET_F_MRG_RXBUF != 0;
        self.tap.configure(features)
    }

    fn stop(&mut self) {
        self.receiver.reset();
    }

    fn serve(&mut self, wake: Wake, queues: &mut Queues<'_>) -> Result<Served, Fault> {
        let sent = match wake {
            Wake::Queue(TRANSMIT) => self.transmit(queues)?,
            Wake::Queue(_) | Wake::Host => Served::default(),
        };
        // The host's kernel carries a frame as far as it can before it returns: what answers it, an acknowledgement above all, often waits already. It comes
        // along, for an interrupt of its own would cost the guest more than all the rest.
        let received = self.receive(queues)?;
        Ok(Served { interrupt: sent.interrupt || received.interrupt, more: sent.more || received.more })
    }

    fn host_fd(&self) -> Option<RawFd> {
        Some(self.tap.fd())
    }

    fn save(&self) -> DeviceRecord {
        DeviceRecord::Net { mac: self.mac }
    }

    fn load(&mut self, record: &DeviceRecord) -> bool {
        *record == self.save()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::devices::virtio::testing::{Ring, ram};

    const FRAME: usize = 60;

    /// Found by measuring: a stream out of the guest cost two interrupts for each of its turns, one for what was sent and one for its acknowledgement.
    #[test]
    fn what_answers_a_frame_comes_with_the_same_interrupt() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let (ram, mut net) = (ram(), Net::on(theirs.into(), [2; 6]).unwrap());
        let (mut receive, mut transmit) = (Ring::new(ram.memory(), 8), Ring::at(ram.memory(), 8, 0x1_0000));
        receive.add(&[(0x4_0000, 2048, true)]);
        transmit.add(&[(0x5_0000, FRAME as u32, false)]);
        ours.send(&[1; FRAME]).unwrap();
        let mut queues = [receive.take_queue(), transmit.take_queue()];
        let served = net.serve(Wake::Queue(TRANSMIT), &mut Queues { queues: &mut queues, ram: &ram, bells: &[], tell: &|| {} }).unwrap();
        assert_eq!(served, Served { interrupt: true, more: false });
        assert_eq!((transmit.used(), receive.used()), (vec![(0, 0)], vec![(0, FRAME as u32)]));
        assert_eq!(ours.recv(&mut [0; 2 * FRAME]).unwrap(), FRAME);
        let served = net.serve(Wake::Host, &mut Queues { queues: &mut queues, ram: &ram, bells: &[], tell: &|| {} }).unwrap();
        assert_eq!(served, Served::default(), "nothing is left for an interrupt of its own");
    }
}
