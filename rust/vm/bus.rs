// SPDX-License-Identifier: GPL-2.0

//! Devices in the kernel: which accesses are theirs, instead of the client's.
//!
//! A vCPU that accesses a device address asks [`Vm::read_device`] and [`Vm::write_device`] before it
//! exits to the client. Most VMs that have devices here have few; those without never get as far as a
//! look-up.
//!
//! The table of devices is an immutable snapshot, read under SRCU and replaced as a whole. Whoever
//! removes a device knows on return that nobody is in it any more.

use super::Vm;
use crate::linux::srcu_cell::SrcuCell;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

/// The kind of device access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Space {
    /// Memory-mapped I/O.
    Mmio,
    /// Ports.
    Pio,
}

/// A device in the kernel. Its methods may be called with preemption off, so they must not sleep.
pub(crate) trait Device: Send + Sync {
    /// Reads `data.len()` bytes (1 to 8) at `address`; returns whether that is the device's to answer.
    fn read(&self, _address: u64, _data: &mut [u8]) -> bool {
        false
    }

    /// Writes 1 to 8 bytes at `address`; returns whether that was the device's to take.
    fn write(&self, address: u64, data: &[u8]) -> bool;
}

/// The addresses of a device.
#[derive(Clone)]
struct Range {
    start: u64,
    /// Number of addresses; 0 for accesses of any length that begin at `start`.
    size: u64,
    device: Arc<dyn Device>,
}

impl Range {
    /// Returns whether an access lies in the range as a whole.
    fn covers(&self, address: u64, len: usize) -> bool {
        let Some(offset) = address.checked_sub(self.start) else {
            return false;
        };
        if self.size == 0 {
            return offset == 0;
        }
        // CAST: widens.
        offset
            .checked_add(len as u64)
            .is_some_and(|end| end <= self.size)
    }
}

/// As many devices are looked at one after another.
const FEW: usize = 4;

/// The devices in one space.
#[derive(Default)]
struct Ranges {
    /// In the order of their starts; of equal ones, in the order in which they were added.
    list: KVVec<Range>,
    /// The size of the largest one.
    largest: u64,
}

impl Ranges {
    /// Returns whether one of the devices that cover the access took it, asked one after another.
    #[inline]
    fn find(&self, address: u64, len: usize, mut take: impl FnMut(&dyn Device) -> bool) -> bool {
        // None that starts earlier reaches as far.
        let first = if self.list.len() <= FEW {
            0
        } else {
            let lowest = address.saturating_sub(self.largest);
            self.list.partition_point(|range| range.start < lowest)
        };
        self.list
            .get(first..)
            .unwrap_or(&[])
            .iter()
            .take_while(|range| range.start <= address)
            .any(|range| range.covers(address, len) && take(&*range.device))
    }

    /// Returns a copy with room for `room` more, of the ranges that `keep` says.
    fn copy(&self, room: usize, keep: impl Fn(&Range) -> bool) -> Result<Self> {
        let mut copy = Self {
            list: KVVec::with_capacity(self.list.len() + room, GFP_KERNEL_ACCOUNT)?,
            largest: 0,
        };
        for range in self.list.iter().filter(|range| keep(range)) {
            copy.insert(range.clone())?;
        }
        Ok(copy)
    }

    /// Adds a range; there is room.
    fn insert(&mut self, range: Range) -> Result {
        self.largest = self.largest.max(range.size);
        let index = self
            .list
            .partition_point(|other| other.start <= range.start);
        self.list
            .insert_within_capacity(index, range)
            .map_err(|_| ENOMEM)
    }
}

/// The devices in both spaces.
#[derive(Default)]
struct Devices {
    mmio: Ranges,
    pio: Ranges,
}

impl Devices {
    fn ranges(&self, space: Space) -> &Ranges {
        match space {
            Space::Mmio => &self.mmio,
            Space::Pio => &self.pio,
        }
    }

    fn ranges_mut(&mut self, space: Space) -> &mut Ranges {
        match space {
            Space::Mmio => &mut self.mmio,
            Space::Pio => &mut self.pio,
        }
    }
}

/// The devices of a VM, see the module's documentation.
#[pin_data]
pub(crate) struct Bus {
    #[pin]
    devices: SrcuCell<Devices>,
    /// Held to replace them.
    #[pin]
    changing: Mutex<()>,
}

impl Bus {
    /// Returns a bus without devices.
    pub(super) fn new() -> Result<Pin<KBox<Self>>> {
        let devices = KBox::new(Devices::default(), GFP_KERNEL_ACCOUNT)?;
        KBox::try_pin_init(
            try_pin_init!(Self {
                devices <- SrcuCell::new(devices),
                changing <- new_mutex!(()),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Adds a device for `size` addresses from `start` on; with a size of 0, for accesses of any length
    /// that begin there.
    ///
    /// Several devices may lie at the same addresses: the first one that takes an access has it. A
    /// device may have several ranges. Sleeps.
    pub(crate) fn add(
        &self,
        space: Space,
        start: u64,
        size: u64,
        device: Arc<dyn Device>,
    ) -> Result {
        self.add_all([(space, start, size, device)])
    }

    /// Adds several ranges of devices, or none if it fails; see [`Bus::add`].
    pub(crate) fn add_all<const N: usize>(
        &self,
        ranges: [(Space, u64, u64, Arc<dyn Device>); N],
    ) -> Result {
        let all = |_: &Range| true;
        self.replace(N, (all, all), |devices| {
            for (space, start, size, device) in ranges {
                devices.ranges_mut(space).insert(Range {
                    start,
                    size,
                    device,
                })?;
            }
            Ok(())
        })
    }

    /// Removes all ranges of a device in one space. Sleeps until nobody is in the device on their
    /// account.
    ///
    /// Fails with `ENOMEM` and leaves the device there.
    pub(crate) fn remove(&self, space: Space, device: &dyn Device) -> Result {
        let stays = |other: Space| {
            move |range: &Range| other != space || !core::ptr::addr_eq(&*range.device, device)
        };
        self.replace(0, (stays(Space::Mmio), stays(Space::Pio)), |_| Ok(()))
    }

    /// Replaces the devices by those that `keep` says (memory-mapped, on ports), and up to `room` that
    /// `add` adds.
    fn replace(
        &self,
        room: usize,
        keep: (impl Fn(&Range) -> bool, impl Fn(&Range) -> bool),
        add: impl FnOnce(&mut Devices) -> Result,
    ) -> Result {
        let _changing = self.changing.lock();
        let mut devices = {
            let old = self.devices.read();
            let mmio = old.mmio.copy(room, keep.0)?;
            let pio = old.pio.copy(room, keep.1)?;
            KBox::new(Devices { mmio, pio }, GFP_KERNEL_ACCOUNT)?
        };
        add(&mut devices)?;
        drop(self.devices.replace(devices));
        Ok(())
    }

    /// Reads from the device at `address`; returns whether there is one that answers.
    fn read(&self, space: Space, address: u64, data: &mut [u8]) -> bool {
        let len = data.len();
        self.devices
            .read()
            .ranges(space)
            .find(address, len, |device| device.read(address, data))
    }

    /// Writes to the device at `address`; returns whether there is one that takes it.
    fn write(&self, space: Space, address: u64, data: &[u8]) -> bool {
        self.devices
            .read()
            .ranges(space)
            .find(address, data.len(), |device| device.write(address, data))
    }
}

impl Vm {
    /// Reads from a device in the kernel; returns whether there is one that answers.
    #[inline]
    pub(crate) fn read_device(&self, space: Space, address: u64, data: &mut [u8]) -> bool {
        self.bus
            .as_ref()
            .is_some_and(|bus| bus.read(space, address, data))
    }

    /// Writes at most 8 bytes to a device in the kernel, as a signal to an eventfd, or into the ring of
    /// coalesced I/O; returns whether one takes it, so that the client has nothing to do now.
    #[inline]
    pub(crate) fn write_device(&self, space: Space, address: u64, data: &[u8]) -> bool {
        self.bus
            .as_ref()
            .is_some_and(|bus| bus.write(space, address, data))
            || self.ioeventfds.write(space, address, data)
            || self.coalesced.write(space, address, data)
    }
}

#[kunit_tests(kvm_rs_bus)]
mod tests {
    use super::*;
    use kernel::sync::atomic::{
        Atomic,
        Relaxed, //
    };

    /// Takes writes of one value, and counts them.
    struct Counter {
        value: u8,
        count: Atomic<u32>,
    }

    impl Counter {
        fn new(value: u8) -> Arc<Self> {
            let count = Atomic::new(0);
            Arc::new(Self { value, count }, GFP_KERNEL).unwrap()
        }

        fn count(&self) -> u32 {
            self.count.load(Relaxed)
        }
    }

    impl Device for Counter {
        fn read(&self, address: u64, data: &mut [u8]) -> bool {
            data.fill(self.value.wrapping_add(address as u8));
            true
        }

        fn write(&self, _address: u64, data: &[u8]) -> bool {
            let mine = data.first() == Some(&self.value);
            self.count.add(u32::from(mine), Relaxed);
            mine
        }
    }

    #[test]
    fn accesses_find_who_covers_them() {
        let bus = Bus::new().unwrap();
        let (one, two) = (Counter::new(1), Counter::new(2));
        bus.add(Space::Pio, 0x20, 2, one.clone()).unwrap();
        bus.add(Space::Mmio, 0x1000, 0x100, two.clone()).unwrap();
        bus.add(Space::Mmio, 0x1ff0, 0x10, two.clone()).unwrap();
        let mut data = [0; 4];
        let (byte, word) = data.split_at_mut(1);
        assert!(bus.read(Space::Pio, 0x20, byte) && byte == [0x21]);
        assert!(bus.read(Space::Pio, 0x21, byte) && byte == [0x22]);
        assert!(!bus.read(Space::Pio, 0x22, byte));
        assert!(!bus.read(Space::Pio, 0x1f, byte));
        assert!(!bus.read(Space::Pio, 0x1f, word));
        assert!(!bus.read(Space::Pio, 0x21, word));
        assert!(!bus.read(Space::Mmio, 0x20, byte));
        for (address, found) in [
            (0xfff, false),
            (0x1000, true),
            (0x10fd, true),
            (0x10fe, false),
            (0x1fef, false),
            (0x1ff0, true),
            (0x1ffe, false),
            (u64::MAX, false),
        ] {
            assert_eq!(bus.read(Space::Mmio, address, word), found);
        }
    }

    #[test]
    fn several_share_an_address() {
        let bus = Bus::new().unwrap();
        let (one, two) = (Counter::new(1), Counter::new(2));
        bus.add(Space::Pio, 0x500, 1, one.clone()).unwrap();
        bus.add(Space::Pio, 0x500, 0, two.clone()).unwrap();
        assert!(bus.write(Space::Pio, 0x500, &[1]));
        assert!(bus.write(Space::Pio, 0x500, &[2]));
        // Too long for the first; any length will do for the second.
        assert!(!bus.write(Space::Pio, 0x500, &[1, 0]));
        assert!(bus.write(Space::Pio, 0x500, &[2, 0, 0, 0]));
        assert!(!bus.write(Space::Pio, 0x500, &[3]));
        assert_eq!((one.count(), two.count()), (1, 2));
        bus.remove(Space::Mmio, &*two).unwrap();
        assert!(bus.write(Space::Pio, 0x500, &[2]));
        bus.remove(Space::Pio, &*two).unwrap();
        assert!(!bus.write(Space::Pio, 0x500, &[2]));
        assert!(bus.write(Space::Pio, 0x500, &[1]));
    }
}
