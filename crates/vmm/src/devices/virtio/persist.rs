//! What a snapshot keeps of a virtio device: registers, queues, and the device's own part.

use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueState};

use crate::devices::balloon::BalloonRecord;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TransportRecord {
    pub kind: u32,
    pub status: u32,
    pub features: u64,
    pub features_page: u32,
    pub driver_features_page: u32,
    pub queue_selected: u32,
    pub interrupt_status: u32,
    pub config_generation: u32,
    pub queues: Vec<QueueRecord>,
    pub device: DeviceRecord,
}

/// The device's own part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum DeviceRecord {
    /// A disk is identified by its serial number; its content is beside the snapshot.
    Block {
        serial: String,
        sectors: u64,
        read_only: bool,
    },
    Net {
        mac: [u8; 6],
    },
    Entropy,
    Balloon(BalloonRecord),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QueueRecord {
    max_size: u16,
    size: u16,
    ready: bool,
    next_avail: u16,
    next_used: u16,
    event_index: bool,
    descriptors: u64,
    available: u64,
    used: u64,
}

impl QueueRecord {
    pub(super) fn of(queue: &Queue) -> Self {
        let state = queue.state();
        Self {
            max_size: state.max_size,
            size: state.size,
            ready: state.ready,
            next_avail: state.next_avail,
            next_used: state.next_used,
            event_index: state.event_idx_enabled,
            descriptors: state.desc_table,
            available: state.avail_ring,
            used: state.used_ring,
        }
    }

    /// The queue, checked as if the driver had set it up, for a device that offers `max_size` entries.
    pub(super) fn queue(&self, max_size: u16) -> Option<Queue> {
        let state = QueueState {
            max_size: self.max_size,
            next_avail: self.next_avail,
            next_used: self.next_used,
            event_idx_enabled: self.event_index,
            size: self.size,
            ready: self.ready,
            desc_table: self.descriptors,
            avail_ring: self.available,
            used_ring: self.used,
        };
        Queue::try_from(state).ok().filter(|_| self.max_size == max_size)
    }
}
