// SPDX-License-Identifier: GPL-2.0

//! What `KVM_SET_USER_MEMORY_REGION` asks for, and whether it may have it.

use super::{
    dirty::{
        DirtyBitmap,
        Logging, //
    },
    guest_memfd::Backing,
    slot::{
        GfnRange,
        Slot,
        SlotFlags,
        SlotId, //
    },
    slots::Slots, //
};
use crate::x86::addr::{
    Gfn,
    Gpa,
    Hva,
    PAGE_SHIFT, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Number of slots that a client can use: slot numbers are below it (`KVM_CAP_NR_MEMSLOTS`).
pub(crate) const USER_SLOTS: u16 = 32764;

/// The slot of the APIC-access page, which is no memory but to processors.
pub(crate) const APIC_ACCESS_SLOT: u16 = USER_SLOTS + 1;

/// Number of slots with those that the hypervisor uses itself, behind the client's.
const ALL_SLOTS: u16 = 32767;

/// Largest number of pages in a client's slot: dirty bitmaps are indexed by 31 bits.
const MAX_PAGES: u64 = (1 << 31) - 1;

/// `KVM_MEM_LOG_DIRTY_PAGES`
const LOG_DIRTY_PAGES: u32 = 1 << 0;

/// `KVM_MEM_READONLY`
const READONLY: u32 = 1 << 1;

/// `KVM_MEM_GUEST_MEMFD`
const GUEST_MEMFD: u32 = 1 << 2;

/// A piece of a file of guest memory, as the client wrote it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FilePiece {
    /// Descriptor of the file.
    pub(crate) fd: u32,
    /// Offset of the first byte.
    pub(crate) offset: u64,
}

/// A request to create, move, change or delete a slot, as the client wrote it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    /// Address space in the upper 16 bits, slot number in the lower.
    pub(crate) slot: u32,
    /// `KVM_MEM_*`.
    pub(crate) flags: u32,
    /// Guest-physical address of the first byte.
    pub(crate) gpa: Gpa,
    /// Size in bytes; 0 deletes the slot.
    pub(crate) size: u64,
    /// The client's address of the first byte.
    pub(crate) hva: Hva,
    /// Where the memory is with `KVM_MEM_GUEST_MEMFD`.
    pub(crate) file: FilePiece,
}

/// Who asks for a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Owner {
    /// The client, by ioctl.
    User,
    /// The hypervisor, for memory of its own.
    Internal,
}

/// What a permitted request amounts to.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// A slot appears.
    Create {
        /// The slot as it will be.
        new: Arc<Slot>,
    },
    /// A slot goes.
    Delete {
        /// The slot that goes.
        old: Arc<Slot>,
    },
    /// A slot appears elsewhere in guest-physical memory.
    Move {
        /// The slot where it was.
        old: Arc<Slot>,
        /// The slot where it will be.
        new: Arc<Slot>,
    },
    /// A slot gets other flags.
    Flags {
        /// The slot as it will be.
        new: Arc<Slot>,
    },
    /// The slot is already as asked for.
    Nothing,
}

impl Change {
    /// Returns the number of the slot that changes and what it will be; `None` for no change.
    pub(crate) fn outcome(&self) -> Option<(SlotId, Option<&Arc<Slot>>)> {
        match self {
            Self::Create { new } | Self::Move { new, .. } | Self::Flags { new } => {
                Some((new.id(), Some(new)))
            }
            Self::Delete { old } => Some((old.id(), None)),
            Self::Nothing => None,
        }
    }

    /// Ties a slot that is about to appear to its file, if it has one.
    ///
    /// Fails with `EEXIST` if another slot has that piece of the file, and with `ENOMEM`.
    pub(crate) fn bind(&self) -> Result {
        if let Self::Create { new } = self {
            if let Some(backing) = new.backing() {
                backing.bind(new)?;
            }
        }
        Ok(())
    }

    /// Unties a slot that is gone from its file, if it has one.
    pub(crate) fn unbind(&self) {
        if let Self::Delete { old } = self {
            if let Some(backing) = old.backing() {
                backing.unbind(old);
            }
        }
    }

    /// Returns the frames that have memory after the change and may have had none before.
    pub(crate) fn made(&self) -> Option<GfnRange> {
        match self {
            Self::Create { new } | Self::Move { new, .. } => Some(new.gfns()),
            Self::Delete { .. } | Self::Flags { .. } | Self::Nothing => None,
        }
    }

    /// Returns whether the slot logs writes before the change, and after it.
    fn logs(&self) -> (bool, bool) {
        match self {
            Self::Create { new } => (false, new.flags().log_dirty),
            Self::Move { old, new } => (old.flags().log_dirty, new.flags().log_dirty),
            Self::Delete { old } => (old.flags().log_dirty, false),
            // Of the flags, only this one can change.
            Self::Flags { new } => (!new.flags().log_dirty, new.flags().log_dirty),
            Self::Nothing => (false, false),
        }
    }

    /// Returns whether a slot begins to log writes.
    pub(crate) fn starts_log(&self) -> bool {
        self.logs() == (false, true)
    }

    /// Returns whether a slot that logs writes goes, or does so no longer.
    pub(crate) fn ends_log(&self) -> bool {
        self.logs() == (true, false)
    }

    /// Returns the frames of a slot whose log goes with it to others.
    pub(crate) fn moves_log(&self) -> Option<GfnRange> {
        match self {
            Self::Move { old, .. } if self.logs() == (true, true) => Some(old.gfns()),
            _ => None,
        }
    }

    /// Returns the frames whose translations the change makes wrong.
    pub(crate) fn stale(&self) -> Option<GfnRange> {
        match self {
            Self::Delete { old } | Self::Move { old, .. } => Some(old.gfns()),
            Self::Create { .. } | Self::Flags { .. } | Self::Nothing => None,
        }
    }
}

impl Region {
    /// Returns what the request amounts to on `slots`, where frames end at `gfn_limit` (exclusive).
    ///
    /// The rules, their order and the errors are those of KVM: `EINVAL` for what cannot be,
    /// `EEXIST` for an overlap, `ENOMEM`. `range_ok` tells whether the client can own a range of
    /// addresses, `logging` how a new log begins, if slots have logs of their own. `open` returns that
    /// many pages of a file.
    pub(crate) fn plan(
        &self,
        slots: &Slots,
        owner: Owner,
        gfn_limit: Gfn,
        logging: Option<Logging>,
        range_ok: impl FnOnce(Hva, u64) -> bool,
        open: impl FnOnce(FilePiece, u64) -> Result<Backing>,
    ) -> Result<Change> {
        let flags = self.slot_flags()?;
        let id = self.slot_id(owner)?;
        if self.size & ((1 << PAGE_SHIFT) - 1) != 0
            || !self.gpa.is_page_aligned()
            || !self.hva.is_page_aligned()
            || !range_ok(self.hva, self.size)
            || self.gpa.checked_add(self.size).is_none()
            || !self.file_range_ok()
        {
            return Err(EINVAL);
        }
        let pages = self.size >> PAGE_SHIFT;
        if owner == Owner::User && pages > MAX_PAGES {
            return Err(EINVAL);
        }

        let old = slots.by_id(id).cloned();
        if pages == 0 {
            return old.map(|old| Change::Delete { old }).ok_or(EINVAL);
        }
        let mut new = Slot::new(id, flags, self.gpa.gfn(), pages, self.hva).ok_or(EINVAL)?;
        if self.wants_file() {
            if old.is_some() {
                return Err(EINVAL);
            }
            if slots.overlaps(new.gfns(), id) {
                return Err(EEXIST);
            }
            new.set_backing(open(self.file, pages)?);
        }
        if flags.log_dirty {
            // A slot that moves takes its log along.
            let log = old.as_ref().and_then(|old| old.log().cloned());
            if let Some(log) = log {
                new.set_log(log);
            } else if let Some(logging) = logging {
                new.set_log(DirtyBitmap::new(pages, logging.initially_set)?);
            }
        }
        let change = Self::compare(old, Arc::new(new, GFP_KERNEL_ACCOUNT)?)?;
        if let Change::Create { new } | Change::Move { new, .. } = &change {
            if slots.overlaps(new.gfns(), id) {
                return Err(EEXIST);
            }
            if new.gfns().end > gfn_limit {
                return Err(EINVAL);
            }
        }
        Ok(change)
    }

    /// Returns what it takes to make `new` of `old`, `EINVAL` if a slot cannot change so.
    fn compare(old: Option<Arc<Slot>>, new: Arc<Slot>) -> Result<Change> {
        let Some(old) = old else {
            return Ok(Change::Create { new });
        };
        if old.hva() != new.hva()
            || old.pages() != new.pages()
            || old.flags().read_only != new.flags().read_only
            || old.backing().is_some()
        {
            return Err(EINVAL);
        }
        Ok(if old.base() != new.base() {
            Change::Move { old, new }
        } else if old.flags() != new.flags() {
            Change::Flags { new }
        } else {
            Change::Nothing
        })
    }

    /// Returns the flags, `EINVAL` if there is one that is not known or not offered.
    fn slot_flags(&self) -> Result<SlotFlags> {
        let known = if self.wants_file() {
            GUEST_MEMFD
        } else {
            READONLY | LOG_DIRTY_PAGES
        };
        if self.flags & !known != 0 {
            return Err(EINVAL);
        }
        Ok(SlotFlags {
            read_only: self.flags & READONLY != 0,
            log_dirty: self.flags & LOG_DIRTY_PAGES != 0,
        })
    }

    /// Returns whether the memory is to come from a file of guest memory.
    fn wants_file(&self) -> bool {
        self.flags & GUEST_MEMFD != 0
    }

    /// Returns whether the piece of the file, if one is asked for, is of pages and does not wrap.
    fn file_range_ok(&self) -> bool {
        let offset = self.file.offset;
        !self.wants_file()
            || (offset & ((1 << PAGE_SHIFT) - 1) == 0 && offset.checked_add(self.size).is_some())
    }

    /// Returns the slot's number, `EINVAL` if the asker has no such slot.
    fn slot_id(&self, owner: Owner) -> Result<SlotId> {
        let id = u16::try_from(self.slot).map_err(|_| EINVAL)?;
        let known = match owner {
            Owner::User => id < USER_SLOTS,
            Owner::Internal => (USER_SLOTS..ALL_SLOTS).contains(&id),
        };
        if known {
            Ok(SlotId(id))
        } else {
            Err(EINVAL)
        }
    }
}

#[kunit_tests(kvm_rs_region)]
mod tests {
    use super::*;

    const PAGE: u64 = 1 << PAGE_SHIFT;

    fn region(slot: u32, flags: u32, gpa: u64, size: u64, hva: u64) -> Region {
        Region {
            slot,
            flags,
            gpa: Gpa::new(gpa),
            size,
            hva: Hva::new(hva),
            file: FilePiece::default(),
        }
    }

    fn plan(slots: &Slots, region: Region) -> Result<Change> {
        let logging = Some(Logging::default());
        region.plan(
            slots,
            Owner::User,
            Gfn::new(1 << 27),
            logging,
            |hva, size| {
                hva.checked_add(size)
                    .is_some_and(|end| end.value() <= 1 << 47)
            },
            |_, _| Err(EBADF),
        )
    }

    fn one() -> Slots {
        let slots = Slots::new();
        let Ok(Change::Create { new }) = plan(&slots, region(5, 0, 16 * PAGE, 16 * PAGE, PAGE))
        else {
            return slots;
        };
        slots.with_change(new.id(), Some(&new)).unwrap()
    }

    #[test]
    fn malformed_requests_are_refused() {
        let slots = Slots::new();
        for bad in [
            region(0, 0, 0, PAGE + 1, 0),
            region(0, 0, 1, PAGE, 0),
            region(0, 0, 0, PAGE, 1),
            region(0, GUEST_MEMFD | READONLY, 0, PAGE, 0),
            region(0, GUEST_MEMFD | LOG_DIRTY_PAGES, 0, PAGE, 0),
            region(0, 1 << 3, 0, PAGE, 0),
            region(0, 1 << 31, 0, PAGE, 0),
            region(u32::from(USER_SLOTS), 0, 0, PAGE, 0),
            region(0xffff, 0, 0, PAGE, 0),
            region(1 << 16, 0, 0, PAGE, 0),
            region(0, 0, 0, PAGE, 1 << 47),
            region(0, 0, 0, PAGE, u64::MAX - PAGE + 1),
            region(0, 0, u64::MAX - PAGE + 1, PAGE, 0),
            region(0, 0, 0, 1 << 43, 0),
            region(0, 0, (1 << 39) - PAGE, 2 * PAGE, 0),
            // There is nothing to delete.
            region(0, 0, 0, 0, 0),
        ] {
            assert_eq!(plan(&slots, bad).err(), Some(EINVAL));
        }
    }

    #[test]
    fn limits_are_inclusive() {
        let slots = Slots::new();
        let last = u32::from(USER_SLOTS) - 1;
        for good in [
            region(last, 0, 0, PAGE, 0),
            region(0, READONLY, 0, PAGE, 0),
            region(0, 0, (1 << 39) - PAGE, PAGE, 0),
            region(0, 0, 0, PAGE, (1 << 47) - PAGE),
        ] {
            assert!(matches!(plan(&slots, good), Ok(Change::Create { .. })));
        }
    }

    #[test]
    fn existing_slots_change_only_so() {
        let slots = one();
        let again = |flags, gpa, size, hva| plan(&slots, region(5, flags, gpa, size, hva));
        let (base, size) = (16 * PAGE, 16 * PAGE);
        assert!(matches!(again(0, base, size, PAGE), Ok(Change::Nothing)));
        assert!(matches!(again(0, 0, 0, 0), Ok(Change::Delete { .. })));
        assert!(matches!(
            again(0, 8 * PAGE, size, PAGE),
            Ok(Change::Move { .. })
        ));
        assert_eq!(again(READONLY, base, size, PAGE).err(), Some(EINVAL));
        assert_eq!(again(0, base, size + PAGE, PAGE).err(), Some(EINVAL));
        assert_eq!(again(0, base, size, 2 * PAGE).err(), Some(EINVAL));
    }

    #[test]
    fn overlap_is_refused_before_the_limit() {
        let slots = one();
        let other = |gpa, size| plan(&slots, region(6, 0, gpa, size, 0));
        assert_eq!(other(31 * PAGE, PAGE).err(), Some(EEXIST));
        assert_eq!(other(0, 17 * PAGE).err(), Some(EEXIST));
        assert_eq!(other(0, 1 << 40).err(), Some(EEXIST));
        assert!(matches!(other(0, 16 * PAGE), Ok(Change::Create { .. })));
        assert!(matches!(other(32 * PAGE, PAGE), Ok(Change::Create { .. })));
    }

    #[test]
    fn internal_slots_are_the_hypervisors() {
        let slots = Slots::new();
        let ask = |slot: u16, owner| {
            region(u32::from(slot), 0, 0, PAGE, 0)
                .plan(
                    &slots,
                    owner,
                    Gfn::new(1 << 27),
                    Some(Logging::default()),
                    |_, _| true,
                    |_, _| Err(EBADF),
                )
                .is_ok()
        };
        assert!(ask(USER_SLOTS, Owner::Internal));
        assert!(!ask(USER_SLOTS, Owner::User));
        assert!(!ask(0, Owner::Internal));
        assert!(!ask(ALL_SLOTS, Owner::Internal));
    }
}
