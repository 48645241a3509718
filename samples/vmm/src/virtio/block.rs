// SPDX-License-Identifier: GPL-2.0

//! A disk that is a file.

use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_FLUSH;
use virtio_bindings::virtio_blk::VIRTIO_BLK_ID_BYTES;
use virtio_bindings::virtio_blk::VIRTIO_BLK_S_IOERR;
use virtio_bindings::virtio_blk::VIRTIO_BLK_S_OK;
use virtio_bindings::virtio_blk::VIRTIO_BLK_S_UNSUPP;
use virtio_bindings::virtio_blk::VIRTIO_BLK_T_FLUSH;
use virtio_bindings::virtio_blk::VIRTIO_BLK_T_GET_ID;
use virtio_bindings::virtio_blk::VIRTIO_BLK_T_IN;
use virtio_bindings::virtio_blk::VIRTIO_BLK_T_OUT;
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use virtio_queue::Queue;
use virtio_queue::QueueT;
use virtio_queue::Reader;
use virtio_queue::Writer;
use vm_memory::GuestMemoryMmap;

use super::mmio::Device;
use super::Chain;

/// Bytes of a sector.
const SECTOR: u64 = 512;

/// Bytes that are copied at once.
const CHUNK: usize = 1 << 16;

/// What the disk calls itself.
const NAME: &[u8] = b"kvm-rs vmm";

/// A disk.
pub struct Block {
    file: File,
    /// Size in sectors.
    sectors: u64,
    /// `struct virtio_blk_config`, of which only the size is there.
    config: [u8; 8],
    buffer: Vec<u8>,
}

impl Block {
    /// Makes a disk of the file at `path`; what does not fill a sector is left out.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display();
        let file = File::options()
            .read(true)
            .write(true)
            .open(path)
            .with_context(|| format!("cannot open the disk {name}"))?;
        let size = file
            .metadata()
            .with_context(|| format!("cannot look at {name}"))?
            .len();
        let sectors = size / SECTOR;
        Ok(Self {
            file,
            sectors,
            config: sectors.to_le_bytes(),
            buffer: vec![0; CHUNK],
        })
    }

    /// Carries out the request in `chain`; returns how many bytes of the chain were written.
    fn execute(&mut self, chain: Chain<'_>, memory: &GuestMemoryMmap) -> Result<u32> {
        let mut input = chain.clone().reader(memory)?;
        let mut output = chain.writer(memory)?;
        // The last byte that can be written is the status.
        let data = output
            .available_bytes()
            .checked_sub(1)
            .context("a request without room for its status")?;
        let mut status = output.split_at(data)?;

        let kind: u32 = input.read_obj().context("a request without a kind")?;
        let _priority: u32 = input.read_obj().context("a request without a priority")?;
        let sector: u64 = input.read_obj().context("a request without a sector")?;
        let done = match kind {
            VIRTIO_BLK_T_IN => self.copy_out(sector, &mut output),
            VIRTIO_BLK_T_OUT => self.copy_in(sector, &mut input),
            VIRTIO_BLK_T_FLUSH => self.file.sync_data(),
            VIRTIO_BLK_T_GET_ID => write_name(&mut output),
            _ => Err(io::ErrorKind::Unsupported.into()),
        };
        let answer = match done {
            Ok(()) => VIRTIO_BLK_S_OK,
            Err(error) if error.kind() == io::ErrorKind::Unsupported => VIRTIO_BLK_S_UNSUPP,
            Err(_) => VIRTIO_BLK_S_IOERR,
        };
        status.write_obj(answer as u8)?;
        Ok(u32::try_from(output.bytes_written() + 1)?)
    }

    /// Copies from the disk at `sector` to the guest.
    fn copy_out(&mut self, sector: u64, output: &mut Writer<'_>) -> io::Result<()> {
        let mut place = self.place(sector, output.available_bytes())?;
        while output.available_bytes() > 0 {
            let count = output.available_bytes().min(self.buffer.len());
            let (buffer, _) = self.buffer.split_at_mut(count);
            self.file.read_exact_at(buffer, place)?;
            output.write_all(buffer)?;
            place += count as u64;
        }
        Ok(())
    }

    /// Copies from the guest to the disk at `sector`.
    fn copy_in(&mut self, sector: u64, input: &mut Reader<'_>) -> io::Result<()> {
        let mut place = self.place(sector, input.available_bytes())?;
        while input.available_bytes() > 0 {
            let count = input.available_bytes().min(self.buffer.len());
            let (buffer, _) = self.buffer.split_at_mut(count);
            input.read_exact(buffer)?;
            self.file.write_all_at(buffer, place)?;
            place += count as u64;
        }
        Ok(())
    }

    /// Returns where in the file `sector` is; fails if not all of `size` bytes are on the disk.
    fn place(&self, sector: u64, size: usize) -> io::Result<u64> {
        let sectors = (size as u64).div_ceil(SECTOR);
        match sector.checked_add(sectors) {
            Some(end) if end <= self.sectors => Ok(sector * SECTOR),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

impl Device for Block {
    const ID: u32 = VIRTIO_ID_BLOCK;
    const QUEUES: usize = 1;

    fn features(&self) -> u64 {
        1 << VIRTIO_BLK_F_FLUSH
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn serve(&mut self, _index: usize, queue: &mut Queue, memory: &GuestMemoryMmap) -> Result<()> {
        loop {
            queue.disable_notification(memory)?;
            while let Some(chain) = queue.pop_descriptor_chain(memory) {
                let head = chain.head_index();
                let written = self.execute(chain, memory)?;
                queue.add_used(memory, head, written)?;
            }
            // A request that came before notifications were on again has told nobody.
            if !queue.enable_notification(memory)? {
                return Ok(());
            }
        }
    }
}

/// Writes the disk's name, padded with zeroes.
fn write_name(output: &mut Writer<'_>) -> io::Result<()> {
    let mut name = NAME.to_vec();
    name.resize(VIRTIO_BLK_ID_BYTES as usize, 0);
    name.truncate(output.available_bytes());
    output.write_all(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use virtio_bindings::virtio_ring::VRING_DESC_F_WRITE;
    use virtio_queue::desc::split::Descriptor;
    use virtio_queue::desc::RawDescriptor;
    use virtio_queue::mock::MockSplitQueue;
    use vm_memory::Bytes;
    use vm_memory::GuestAddress;

    const HEADER: u64 = 0x8000;
    const DATA: u64 = 0x9000;
    const STATUS: u64 = 0xa000;

    fn memory() -> GuestMemoryMmap {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x20000)]).unwrap()
    }

    fn disk(data: &[u8], name: &str) -> Block {
        let path = std::env::temp_dir().join(format!("vmm-{}-{name}", std::process::id()));
        std::fs::write(&path, data).unwrap();
        let disk = Block::open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        disk
    }

    /// Has `disk` execute a request with `size` bytes of data, and returns its status.
    fn request(
        disk: &mut Block,
        memory: &GuestMemoryMmap,
        kind: u32,
        sector: u64,
        size: u32,
    ) -> u32 {
        let out = kind == VIRTIO_BLK_T_OUT;
        let write = VRING_DESC_F_WRITE as u16;
        memory.write_obj(kind, GuestAddress(HEADER)).unwrap();
        memory.write_obj(sector, GuestAddress(HEADER + 8)).unwrap();
        memory.write_obj(0xffu8, GuestAddress(STATUS)).unwrap();
        let chain = [
            Descriptor::new(HEADER, 16, 0, 0),
            Descriptor::new(DATA, size, if out { 0 } else { write }, 0),
            Descriptor::new(STATUS, 1, write, 0),
        ]
        .map(RawDescriptor::from);
        let ring = MockSplitQueue::new(memory, 16);
        ring.build_desc_chain(&chain).unwrap();
        let mut queue: Queue = ring.create_queue().unwrap();
        disk.serve(0, &mut queue, memory).unwrap();
        assert_eq!(queue.next_used(), 1);
        memory.read_obj::<u8>(GuestAddress(STATUS)).unwrap().into()
    }

    /// Returns what `memory` holds at `address`.
    fn bytes<const N: usize>(memory: &GuestMemoryMmap, address: GuestAddress) -> [u8; N] {
        let mut bytes = [0; N];
        memory.read_slice(&mut bytes, address).unwrap();
        bytes
    }

    #[test]
    fn reads_what_was_written() {
        let memory = memory();
        let mut disk = disk(&[1; 2048], "written");
        memory.write_slice(&[9; 512], GuestAddress(DATA)).unwrap();
        let write = request(&mut disk, &memory, VIRTIO_BLK_T_OUT, 2, 512);
        let read = request(&mut disk, &memory, VIRTIO_BLK_T_IN, 1, 1536);
        assert_eq!((write, read), (VIRTIO_BLK_S_OK, VIRTIO_BLK_S_OK));
        let data = bytes::<1536>(&memory, GuestAddress(DATA));
        assert_eq!(data[..512], [1; 512]);
        assert_eq!(data[512..1024], [9; 512]);
        assert_eq!(data[1024..], [1; 512]);
    }

    #[test]
    fn nothing_beyond_the_end() {
        let memory = memory();
        let mut disk = disk(&[1; 2050], "end");
        assert_eq!(disk.config, 4u64.to_le_bytes());
        for (sector, size) in [(4, 512), (3, 513), (u64::MAX, 512), (1 << 55, 512)] {
            for kind in [VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT] {
                let status = request(&mut disk, &memory, kind, sector, size);
                assert_eq!(status, VIRTIO_BLK_S_IOERR, "{sector} {size}");
            }
        }
        assert_eq!(disk.file.metadata().unwrap().len(), 2050);
    }

    #[test]
    fn knows_what_it_cannot_do() {
        let memory = memory();
        let mut disk = disk(&[1; 512], "kinds");
        assert_eq!(request(&mut disk, &memory, 77, 0, 512), VIRTIO_BLK_S_UNSUPP);
        let name = request(&mut disk, &memory, VIRTIO_BLK_T_GET_ID, 0, 20);
        assert_eq!(name, VIRTIO_BLK_S_OK);
        let name = bytes::<20>(&memory, GuestAddress(DATA));
        assert!(name.starts_with(b"kvm-rs vmm\0"));
    }

    #[test]
    fn a_request_without_status_is_an_error() {
        let memory = memory();
        let mut disk = disk(&[1; 512], "status");
        let chain = [RawDescriptor::from(Descriptor::new(HEADER, 16, 0, 0))];
        let ring = MockSplitQueue::new(&memory, 16);
        ring.build_desc_chain(&chain).unwrap();
        let mut queue: Queue = ring.create_queue().unwrap();
        assert!(disk.serve(0, &mut queue, &memory).is_err());
    }
}
