// SPDX-License-Identifier: GPL-2.0

//! Eventfds that the guest signals by writing to a device: no exit to the client.
//!
//! A client names an address, a length and perhaps a value; a write that is just so signals its
//! eventfd and is done. With length 0, any write to the address does. For memory-mapped I/O that one
//! is looked for before the instruction is, when the MMU's entry tells that there is no memory: the
//! instruction is skipped and never decoded, so it might as well be a read.
//!
//! No two of them match the same write, so their order does not matter.

use super::bus::Space;
use crate::linux::{
    eventfd::EventFd,
    srcu_cell::SrcuCell, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Release, //
        },
        Arc,
        Mutex, //
    }, //
};

/// What an address is an address of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Memory-mapped I/O.
    Mmio,
    /// Ports.
    Pio,
    /// Notifications of virtio on s390 channels: kept, but no guest of this architecture has any.
    VirtioCcw,
}

impl From<Space> for Kind {
    fn from(space: Space) -> Self {
        match space {
            Space::Mmio => Self::Mmio,
            Space::Pio => Self::Pio,
        }
    }
}

/// The writes that signal an eventfd.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Doorbell {
    /// Where.
    pub(crate) kind: Kind,
    /// The address, exactly.
    pub(crate) address: u64,
    /// Bytes, exactly; 0 for any number.
    pub(crate) length: u32,
    /// The value; `None` for any.
    pub(crate) value: Option<u64>,
}

impl Doorbell {
    /// Returns whether the client may ask for it.
    pub(crate) fn is_valid(&self) -> bool {
        matches!(self.length, 0 | 1 | 2 | 4 | 8)
            && self.address.checked_add(self.length.into()).is_some()
            && !(self.length == 0 && self.value.is_some())
    }

    /// Returns whether there are writes that would signal both.
    fn collides(&self, other: &Self) -> bool {
        let same_value = self.value.is_none() || other.value.is_none() || self.value == other.value;
        self.kind == other.kind
            && self.address == other.address
            && (self.length == 0
                || other.length == 0
                || (self.length == other.length && same_value))
    }

    /// Returns whether a write of `data` to the address is one.
    fn takes(&self, data: &[u8]) -> bool {
        self.length == 0
            || (self.length as usize == data.len()
                && self.value.is_none_or(|value| value == number(data)))
    }
}

/// Returns the number that at most 8 bytes are.
fn number(data: &[u8]) -> u64 {
    data.iter()
        .rev()
        .fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// What writes signal, sorted by address.
struct Table<E>(KVVec<(Doorbell, E)>);

impl<E: Clone> Table<E> {
    /// Returns the eventfd that a write signals.
    #[inline]
    fn find(&self, kind: Kind, address: u64, takes: impl Fn(&Doorbell) -> bool) -> Option<&E> {
        let start = self
            .0
            .partition_point(|(doorbell, _)| doorbell.address < address);
        self.0
            .get(start..)?
            .iter()
            .take_while(|(doorbell, _)| doorbell.address == address)
            .find(|(doorbell, _)| doorbell.kind == kind && takes(doorbell))
            .map(|(_, eventfd)| eventfd)
    }

    /// Returns the table with one more; `EEXIST` if it would collide.
    fn with(&self, doorbell: Doorbell, eventfd: E) -> Result<Self> {
        if self.0.iter().any(|(other, _)| other.collides(&doorbell)) {
            return Err(EEXIST);
        }
        let mut larger = KVVec::with_capacity(self.0.len() + 1, GFP_KERNEL_ACCOUNT)?;
        let start = self
            .0
            .partition_point(|(other, _)| other.address < doorbell.address);
        let (before, after) = self.0.split_at_checked(start).ok_or(EINVAL)?;
        larger.extend_from_slice(before, GFP_KERNEL_ACCOUNT)?;
        larger.push((doorbell, eventfd), GFP_KERNEL_ACCOUNT)?;
        larger.extend_from_slice(after, GFP_KERNEL_ACCOUNT)?;
        Ok(Self(larger))
    }

    /// Returns the table without that one; `ENOENT` if it is not there.
    fn without(&self, doorbell: &Doorbell, is: impl Fn(&E) -> bool) -> Result<Self> {
        let index = self
            .0
            .iter()
            .position(|(other, eventfd)| other == doorbell && is(eventfd))
            .ok_or(ENOENT)?;
        let mut smaller = KVVec::with_capacity(self.0.len(), GFP_KERNEL_ACCOUNT)?;
        for (at, entry) in self.0.iter().enumerate() {
            if at != index {
                smaller.push(entry.clone(), GFP_KERNEL_ACCOUNT)?;
            }
        }
        Ok(Self(smaller))
    }

    /// Returns which kinds of writes are to be looked up.
    fn kinds(&self) -> u32 {
        self.0.iter().fold(0, |kinds, (doorbell, _)| {
            kinds
                | match (doorbell.kind, doorbell.length) {
                    (Kind::Mmio, 0) => MMIO | ANY_MMIO,
                    (Kind::Mmio, _) => MMIO,
                    (Kind::Pio, _) => PIO,
                    (Kind::VirtioCcw, _) => 0,
                }
        })
    }
}

/// There are some for ports, for memory-mapped I/O, and for that of any length.
const PIO: u32 = 1;
const MMIO: u32 = 2;
const ANY_MMIO: u32 = 4;

/// The eventfds of a VM that its guest signals.
#[pin_data]
pub(crate) struct IoEventFds {
    #[pin]
    table: SrcuCell<Table<Arc<EventFd>>>,
    /// What the table has: spares most accesses the search.
    kinds: Atomic<u32>,
    /// Held to change the table.
    #[pin]
    changing: Mutex<()>,
}

impl IoEventFds {
    /// Returns an initialiser of none.
    pub(super) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            table <- SrcuCell::new(KBox::new(Table(KVVec::new()), GFP_KERNEL_ACCOUNT)?),
            kinds: Atomic::new(0),
            changing <- new_mutex!(()),
        })
    }

    /// Has writes signal an eventfd; `EEXIST` if some of them signal another.
    pub(crate) fn assign(&self, doorbell: Doorbell, eventfd: EventFd) -> Result {
        let eventfd = Arc::new(eventfd, GFP_KERNEL_ACCOUNT)?;
        let _changing = self.changing.lock();
        let table = self.table.read().with(doorbell, eventfd)?;
        self.replace(table)
    }

    /// Undoes [`IoEventFds::assign`]: on return, no write signals the eventfd any more. `ENOENT` if
    /// there is no such one.
    pub(crate) fn deassign(&self, doorbell: &Doorbell, eventfd: &EventFd) -> Result {
        let _changing = self.changing.lock();
        let table = self
            .table
            .read()
            .without(doorbell, |other| other.is(eventfd))?;
        self.replace(table)
    }

    /// Publishes a table; `changing` is held.
    fn replace(&self, table: Table<Arc<EventFd>>) -> Result {
        let kinds = table.kinds();
        let old = self.table.replace(KBox::new(table, GFP_KERNEL_ACCOUNT)?);
        self.kinds.store(kinds, Release);
        // Waits for who still uses the old one.
        drop(old);
        Ok(())
    }

    /// Signals the eventfd that is for a write of at most 8 bytes; returns whether there is one. Does
    /// not sleep.
    #[inline]
    pub(crate) fn write(&self, space: Space, address: u64, data: &[u8]) -> bool {
        let kind = match space {
            Space::Mmio => MMIO,
            Space::Pio => PIO,
        };
        self.kinds.load(Acquire) & kind != 0
            && self.signal(space.into(), address, |doorbell| doorbell.takes(data))
    }

    /// Signals the eventfd that is for writes of any length to an address of memory-mapped I/O; returns
    /// whether there is one. Does not sleep.
    #[inline]
    pub(crate) fn write_any(&self, address: u64) -> bool {
        self.kinds.load(Acquire) & ANY_MMIO != 0
            && self.signal(Kind::Mmio, address, |doorbell| doorbell.length == 0)
    }

    /// Returns whether there are writes to the address that signal an eventfd.
    pub(crate) fn has(&self, space: Space, address: u64) -> bool {
        self.kinds.load(Acquire) != 0
            && self
                .table
                .read()
                .find(space.into(), address, |_| true)
                .is_some()
    }

    fn signal(&self, kind: Kind, address: u64, takes: impl Fn(&Doorbell) -> bool) -> bool {
        let table = self.table.read();
        let found = table.find(kind, address, takes);
        if let Some(eventfd) = found {
            eventfd.signal();
        }
        found.is_some()
    }
}

#[kunit_tests(kvm_rs_ioeventfd)]
mod tests {
    use super::*;

    const PORT: Doorbell = Doorbell {
        kind: Kind::Pio,
        address: 0x80,
        length: 2,
        value: None,
    };

    fn table(entries: &[Doorbell]) -> Table<usize> {
        let mut table = Table(KVVec::new());
        for (index, &doorbell) in entries.iter().enumerate() {
            table = table.with(doorbell, index).unwrap();
        }
        table
    }

    fn find(table: &Table<usize>, kind: Kind, address: u64, data: &[u8]) -> Option<usize> {
        let found = table.find(kind, address, |doorbell| doorbell.takes(data));
        found.copied()
    }

    #[test]
    fn requests_are_checked() {
        let valid = |length, value, address| {
            Doorbell {
                length,
                value,
                address,
                ..PORT
            }
            .is_valid()
        };
        for length in [0, 1, 2, 4, 8] {
            assert!(valid(length, None, u64::MAX - 8));
            assert_eq!(valid(length, Some(0), 0), length != 0);
        }
        for length in [3, 5, 7, 9, 16, u32::MAX] {
            assert!(!valid(length, None, 0));
        }
        assert!(valid(0, None, u64::MAX));
        assert!(valid(1, None, u64::MAX - 1));
        assert!(!valid(1, None, u64::MAX));
        assert!(!valid(8, None, u64::MAX - 7));
    }

    #[test]
    fn writes_match_exactly() {
        let entries = [
            PORT,
            Doorbell { length: 4, ..PORT },
            Doorbell {
                kind: Kind::Mmio,
                ..PORT
            },
            Doorbell {
                address: 0x90,
                value: Some(0x1234),
                ..PORT
            },
            Doorbell {
                address: 0x90,
                value: Some(0x1235),
                ..PORT
            },
            Doorbell {
                kind: Kind::Mmio,
                address: 0x10,
                length: 0,
                value: None,
            },
            Doorbell {
                kind: Kind::Mmio,
                address: 0x88,
                length: 8,
                value: Some(u64::MAX),
            },
        ];
        let table = table(&entries);
        assert_eq!(find(&table, Kind::Pio, 0x80, &[1, 2]), Some(0));
        assert_eq!(find(&table, Kind::Pio, 0x80, &[1; 4]), Some(1));
        assert_eq!(find(&table, Kind::Pio, 0x80, &[1]), None);
        assert_eq!(find(&table, Kind::Pio, 0x81, &[1]), None);
        assert_eq!(find(&table, Kind::Mmio, 0x80, &[1; 2]), Some(2));
        assert_eq!(find(&table, Kind::Mmio, 0x80, &[1; 4]), None);
        assert_eq!(find(&table, Kind::Pio, 0x90, &[0x34, 0x12]), Some(3));
        assert_eq!(find(&table, Kind::Pio, 0x90, &[0x35, 0x12]), Some(4));
        assert_eq!(find(&table, Kind::Pio, 0x90, &[0x36, 0x12]), None);
        for len in 1..=8 {
            assert_eq!(find(&table, Kind::Mmio, 0x10, &[0; 8][..len]), Some(5));
        }
        assert_eq!(find(&table, Kind::Pio, 0x10, &[0]), None);
        assert_eq!(find(&table, Kind::Mmio, 0x88, &[0xff; 8]), Some(6));
        assert_eq!(find(&table, Kind::Mmio, 0x88, &[0xff; 4]), None);
        assert_eq!(table.kinds(), PIO | MMIO | ANY_MMIO);
    }

    #[test]
    fn collisions_are_refused() {
        let valued = |value| Doorbell {
            value: Some(value),
            ..PORT
        };
        let one = table(&[valued(1)]);
        assert!(one.with(valued(2), 1).is_ok());
        assert!(one.with(Doorbell { length: 4, ..PORT }, 1).is_ok());
        let mmio = Doorbell {
            kind: Kind::Mmio,
            ..PORT
        };
        assert!(one.with(mmio, 1).is_ok());
        for same in [valued(1), PORT, Doorbell { length: 0, ..PORT }] {
            assert_eq!(one.with(same, 1).err(), Some(EEXIST));
        }
    }

    #[test]
    fn only_the_same_is_removed() {
        let one = table(&[PORT]);
        let valued = Doorbell {
            value: Some(0),
            ..PORT
        };
        assert_eq!(one.without(&valued, |_| true).err(), Some(ENOENT));
        assert_eq!(one.without(&PORT, |&e| e == 1).err(), Some(ENOENT));
        let none = one.without(&PORT, |&e| e == 0).unwrap();
        assert_eq!(find(&none, Kind::Pio, 0x80, &[1, 2]), None);
        assert_eq!(none.kinds(), 0);
    }
}
