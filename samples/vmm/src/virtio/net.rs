// SPDX-License-Identifier: GPL-2.0

//! A network card whose other end is a TAP interface of the host.

mod tap;

use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::fd::RawFd;

use anyhow::Context;
use anyhow::Result;
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::virtio_net_hdr_v1;
use virtio_bindings::virtio_net::VIRTIO_NET_F_MAC;
use virtio_queue::Queue;
use virtio_queue::QueueT;
use vm_memory::GuestMemoryMmap;

use super::mmio::Device;

/// The queue of frames for the guest.
const RECEIVE: usize = 0;

/// The card's address: a local one, and nobody else's.
const MAC: [u8; 6] = [0x02, b'k', b'v', b'm', b'r', b's'];

/// Bytes in front of each frame, in the queues and at the TAP interface.
const HEADER: usize = size_of::<virtio_net_hdr_v1>();

/// Where the header counts the chains that a frame takes.
const CHAINS: std::ops::Range<usize> = 10..12;

/// Bytes of the longest frame, with its header; without offloads none is longer than Ethernet's.
const FRAME: usize = HEADER + 1518;

/// A network card.
pub struct Net {
    tap: File,
    /// A frame for the guest, and its length; zero if there is none.
    received: [u8; FRAME],
    length: usize,
}

impl Net {
    /// Makes a network card with the TAP interface `name`, which is created where there is none.
    pub fn open(name: &str) -> Result<Self> {
        let tap = tap::open(name, HEADER as i32)
            .with_context(|| format!("cannot open the TAP interface {name}"))?;
        Ok(Self::with(tap))
    }

    /// Makes a network card that sends to and receives from `tap`.
    fn with(tap: File) -> Self {
        Self {
            tap,
            received: [0; FRAME],
            length: 0,
        }
    }

    /// Waits for no frame: returns true if there is one for the guest.
    fn has_frame(&mut self) -> Result<bool> {
        if self.length == 0 {
            self.length = match self.tap.read(&mut self.received) {
                Ok(length) => length,
                // The interface is not up, or there is nothing.
                Err(error) if is_temporary(&error) => 0,
                Err(error) => return Err(error).context("cannot receive from the network"),
            };
        }
        Ok(self.length > 0)
    }

    /// Gives the guest what has arrived, as long as it has room.
    fn receive(&mut self, queue: &mut Queue, memory: &GuestMemoryMmap) -> Result<()> {
        while self.has_frame()? {
            let Some(chain) = queue.pop_descriptor_chain(memory) else {
                // The driver tells when there is room, and that may be now.
                if queue.enable_notification(memory)? {
                    continue;
                }
                return Ok(());
            };
            let head = chain.head_index();
            let mut writer = chain.writer(memory)?;
            // A frame is never spread over several chains; the host leaves it to us to say so.
            self.received[CHAINS].copy_from_slice(&1u16.to_le_bytes());
            let frame = self.received.get(..self.length).unwrap_or_default();
            // A chain that is too short for the frame gets nothing of it, as on a lossy network.
            if writer.available_bytes() >= frame.len() {
                writer.write_all(frame)?;
            }
            queue.add_used(memory, head, u32::try_from(writer.bytes_written())?)?;
            self.length = 0;
        }
        Ok(())
    }

    /// Sends what the guest has put into its queue.
    fn transmit(&mut self, queue: &mut Queue, memory: &GuestMemoryMmap) -> Result<()> {
        loop {
            queue.disable_notification(memory)?;
            while let Some(chain) = queue.pop_descriptor_chain(memory) {
                let head = chain.head_index();
                let mut reader = chain.reader(memory)?;
                let mut frame = [0; FRAME];
                if let Some(frame) = frame.get_mut(..reader.available_bytes()) {
                    reader.read_exact(frame)?;
                    self.send(frame)?;
                }
                queue.add_used(memory, head, 0)?;
            }
            if !queue.enable_notification(memory)? {
                return Ok(());
            }
        }
    }

    /// Sends a frame, or loses it.
    fn send(&mut self, frame: &[u8]) -> Result<()> {
        match self.tap.write(frame) {
            Ok(_) => Ok(()),
            Err(error) if is_temporary(&error) => Ok(()),
            // What the guest has written is no frame.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            Err(error) => Err(error).context("cannot send to the network"),
        }
    }
}

/// Returns true for errors that a network has at times.
fn is_temporary(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::EIO)
}

impl Device for Net {
    const ID: u32 = VIRTIO_ID_NET;
    const QUEUES: usize = 2;

    fn features(&self) -> u64 {
        1 << VIRTIO_NET_F_MAC
    }

    fn config(&self) -> &[u8] {
        &MAC
    }

    fn serve(&mut self, index: usize, queue: &mut Queue, memory: &GuestMemoryMmap) -> Result<()> {
        if index == RECEIVE {
            self.receive(queue, memory)
        } else {
            self.transmit(queue, memory)
        }
    }

    fn source(&self) -> Option<(RawFd, usize)> {
        Some((self.tap.as_raw_fd(), RECEIVE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;
    use virtio_bindings::virtio_ring::VRING_DESC_F_WRITE;
    use virtio_queue::desc::split::Descriptor;
    use virtio_queue::desc::RawDescriptor;
    use virtio_queue::mock::MockSplitQueue;
    use vm_memory::Bytes;
    use vm_memory::GuestAddress;

    const BUFFER: u64 = 0x8000;

    fn memory() -> GuestMemoryMmap {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x20000)]).unwrap()
    }

    /// Returns a card, and the other end of its network.
    fn card() -> (Net, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        (Net::with(File::from(OwnedFd::from(ours))), theirs)
    }

    /// Returns a queue with one chain of one descriptor.
    fn queue(memory: &GuestMemoryMmap, size: u32, flags: u32) -> Queue {
        let chain = [RawDescriptor::from(Descriptor::new(
            BUFFER,
            size,
            flags as u16,
            0,
        ))];
        let ring = MockSplitQueue::new(memory, 16);
        ring.build_desc_chain(&chain).unwrap();
        ring.create_queue().unwrap()
    }

    /// Returns what `memory` holds at `address`.
    fn bytes<const N: usize>(memory: &GuestMemoryMmap, address: GuestAddress) -> [u8; N] {
        let mut bytes = [0; N];
        memory.read_slice(&mut bytes, address).unwrap();
        bytes
    }

    #[test]
    fn sends_a_frame() {
        let (mut card, network) = card();
        let memory = memory();
        memory.write_slice(&[5; 100], GuestAddress(BUFFER)).unwrap();
        let mut queue = queue(&memory, 100, 0);
        card.serve(1, &mut queue, &memory).unwrap();
        let mut frame = [0; 200];
        assert_eq!(network.recv(&mut frame).unwrap(), 100);
        assert_eq!(frame[..100], [5; 100]);
        assert_eq!(queue.next_used(), 1);
    }

    #[test]
    fn what_is_too_long_is_lost() {
        let (mut card, network) = card();
        let memory = memory();
        let mut queue = queue(&memory, 0x4000, 0);
        card.serve(1, &mut queue, &memory).unwrap();
        assert!(network.recv(&mut [0; 16]).is_err());
        assert_eq!(queue.next_used(), 1);
    }

    #[test]
    fn a_frame_waits_for_room() {
        let (mut card, network) = card();
        let memory = memory();
        network.send(&[1; 60]).unwrap();
        network.send(&[2; 70]).unwrap();
        let mut first = queue(&memory, 1600, VRING_DESC_F_WRITE);
        card.serve(RECEIVE, &mut first, &memory).unwrap();
        assert_eq!(first.next_used(), 1);
        let data = bytes::<60>(&memory, GuestAddress(BUFFER));
        assert_eq!(data[CHAINS], [1, 0]);
        assert_eq!(data[HEADER..], [1; 48]);

        let mut second = queue(&memory, 1600, VRING_DESC_F_WRITE);
        card.serve(RECEIVE, &mut second, &memory).unwrap();
        let data = bytes::<70>(&memory, GuestAddress(BUFFER));
        assert_eq!(data[HEADER..], [2; 58]);
    }
}
