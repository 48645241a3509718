// SPDX-License-Identifier: GPL-2.0

//! Translation of a linear address by the guest's own page tables.
//!
//! The processor does this for the guest; we do it where we access memory in its place: for the
//! instruction emulator, for `KVM_TRANSLATE`, and later for shadow paging. The walk is one generic
//! function over [`GuestFormat`], the guest's mode selects which.

use super::guest_format::{
    protection_key,
    GuestFormat,
    Legacy,
    Long,
    Pae,
    Rules,
    ACCESSED,
    DIRTY,
    NO_EXECUTE,
    PRESENT,
    USER,
    WRITE, //
};
use crate::{
    memory::{
        GuestMemory,
        Snapshot,
        Word, //
    },
    x86::{
        addr::{
            Gpa,
            Gva, //
        },
        control_regs::{
            Cr0,
            Cr4,
            Efer, //
        },
    },
};
use kernel::prelude::*;

/// The registers that decide how the guest translates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GuestPaging {
    /// CR0.
    pub(crate) cr0: Cr0,
    /// CR3.
    pub(crate) cr3: u64,
    /// CR4.
    pub(crate) cr4: Cr4,
    /// EFER.
    pub(crate) efer: Efer,
    /// The page-directory pointers that were loaded with CR3; used under PAE paging only.
    pub(crate) pdptrs: [u64; 4],
    /// EFLAGS.AC.
    pub(crate) alignment_check: bool,
    /// The current privilege level, 0 to 3.
    pub(crate) cpl: u8,
    /// Bits of a physical address of the guest's processor.
    pub(crate) phys_bits: u32,
    /// The guest's processor has pages of 1 GiB.
    pub(crate) huge_1g: bool,
    /// PKRU if CR4.PKE is set, else 0: what the keys of user pages in long mode forbid.
    pub(crate) pkru: u32,
}

/// What is to be done at a linear address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct WalkAccess {
    /// Write. An atomic read and write is a write.
    pub(crate) write: bool,
    /// Fetch an instruction.
    pub(crate) execute: bool,
    /// The access is the processor's own, as to a descriptor table or a TSS: it is a supervisor's at
    /// any privilege level, and EFLAGS.AC does not exempt it from SMAP.
    pub(crate) implicit: bool,
}

/// A page fault that the guest is to receive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PageFault {
    /// The error code as the processor pushes it.
    pub(crate) error_code: u32,
    /// The address for CR2.
    pub(crate) gva: Gva,
}

/// Bits of a page fault's error code.
mod code {
    /// The entries were there and did not allow it.
    pub(super) const PROTECTION: u32 = 1 << 0;
    /// It was a write.
    pub(super) const WRITE: u32 = 1 << 1;
    /// It was by user code.
    pub(super) const USER: u32 = 1 << 2;
    /// A reserved bit was set.
    pub(super) const RESERVED: u32 = 1 << 3;
    /// It was an instruction fetch.
    pub(super) const FETCH: u32 = 1 << 4;
    /// The page's protection key forbade it.
    pub(super) const KEY: u32 = 1 << 5;
}

/// The memory that page tables are in.
pub(super) trait TableMemory {
    /// Returns the entry at `gpa`.
    fn read<W: Word>(&self, gpa: Gpa) -> Result<W>;

    /// Replaces the entry at `gpa` by `new` if it is `old`; returns whether it was.
    fn replace<W: Word>(&self, gpa: Gpa, old: W, new: W) -> Result<bool>;

    /// Returns whether the memory at `gpa` can be written.
    fn is_writable(&self, gpa: Gpa) -> bool;
}

/// Guest memory, looked at through its slots as they are now.
struct Tables<'a> {
    memory: &'a GuestMemory,
    slots: Snapshot<'a>,
}

impl TableMemory for Tables<'_> {
    #[inline]
    fn read<W: Word>(&self, gpa: Gpa) -> Result<W> {
        self.memory.read_word_in(&self.slots, gpa)
    }

    fn replace<W: Word>(&self, gpa: Gpa, old: W, new: W) -> Result<bool> {
        Ok(self.memory.compare_exchange(gpa, old, new)?.is_ok())
    }

    fn is_writable(&self, gpa: Gpa) -> bool {
        self.memory.is_writable(gpa)
    }
}

/// Returns where `gva` is in guest-physical memory, and marks the entries used, as the processor would.
///
/// Whether `gva` is canonical and within its segment is the caller's to check. Sleeps.
pub(crate) fn translate(
    memory: &GuestMemory,
    paging: &GuestPaging,
    gva: Gva,
    access: WalkAccess,
) -> Result<Gpa, PageFault> {
    if !paging.cr0.contains(Cr0::PG) {
        return Ok(Gpa::new(gva.value()));
    }
    let tables = Tables {
        memory,
        slots: memory.snapshot(),
    };
    translate_in(&tables, paging, gva, access)
}

/// [`translate`], with page tables in any kind of memory.
fn translate_in(
    memory: &impl TableMemory,
    paging: &GuestPaging,
    gva: Gva,
    access: WalkAccess,
) -> Result<Gpa, PageFault> {
    if !paging.cr0.contains(Cr0::PG) {
        return Ok(Gpa::new(gva.value()));
    }
    let walker = Walker {
        memory,
        paging,
        rules: Rules::new(
            paging.phys_bits,
            paging.efer.contains(Efer::NX),
            paging.cr4.contains(Cr4::PSE),
            paging.huge_1g,
        ),
        gva,
        access,
    };
    if paging.efer.contains(Efer::LMA) {
        if paging.cr4.contains(Cr4::LA57) {
            walker.walk::<Long<5>>(paging.cr3)
        } else {
            walker.walk::<Long<4>>(paging.cr3)
        }
    } else if paging.cr4.contains(Cr4::PAE) {
        match paging.pdptrs.get(Pae::pointer_index(gva)) {
            Some(pointer) if pointer & PRESENT != 0 => walker.walk::<Pae>(*pointer),
            _ => Err(walker.fault(0)),
        }
    } else {
        walker.walk::<Legacy>(paging.cr3)
    }
}

/// How often a walk starts again because somebody else changed an entry that it was to mark.
const MAX_RESTARTS: u32 = 64;

/// Most entries on a way through the tables.
const MAX_LEVELS: usize = 5;

/// An entry on the way, to be marked used.
#[derive(Clone, Copy)]
struct Visited<W> {
    gpa: Gpa,
    entry: W,
}

/// One translation.
struct Walker<'a, M: TableMemory> {
    memory: &'a M,
    paging: &'a GuestPaging,
    rules: Rules,
    gva: Gva,
    access: WalkAccess,
}

/// What the entries on the way allow together.
#[derive(Clone, Copy)]
struct Allowed {
    write: bool,
    user: bool,
    execute: bool,
}

impl<M: TableMemory> Walker<'_, M> {
    /// Walks from the table that `root` (CR3, or a page-directory pointer) leads to.
    fn walk<F: GuestFormat>(&self, root: u64) -> Result<Gpa, PageFault> {
        // Most often all entries are marked used already, and need not be remembered.
        let (gpa, marked) = self.descend::<F>(root, |_| {})?;
        if marked {
            return Ok(gpa);
        }
        for _ in 0..MAX_RESTARTS {
            let mut visited = [None; MAX_LEVELS];
            let mut places = visited.iter_mut();
            let (gpa, _) = self.descend::<F>(root, |entry| {
                if let Some(place) = places.next() {
                    *place = Some(entry);
                }
            })?;
            if self.mark_used(&visited)? {
                return Ok(gpa);
            }
        }
        // A guest that keeps changing the entry gets the fault that it may get at any time for an
        // entry that changes: it tries again.
        Err(self.fault(0))
    }

    /// Calls `visit` for each entry on the way, and returns what the last one leads to, and whether all
    /// are marked as this access would mark them.
    #[inline(always)]
    fn descend<F: GuestFormat>(
        &self,
        root: u64,
        mut visit: impl FnMut(Visited<F::Entry>),
    ) -> Result<(Gpa, bool), PageFault> {
        let mut table = F::root(root);
        // What all entries have, and what one forbids.
        let (mut all, mut any) = (u64::MAX, 0);
        for level in (1..=F::LEVELS).rev() {
            let gpa = F::entry_address(table, self.gva, level);
            let entry: F::Entry = self.memory.read(gpa).map_err(|_| self.fault(0))?;
            visit(Visited { gpa, entry });
            let bits: u64 = entry.into();
            if bits & PRESENT == 0 {
                return Err(self.fault(0));
            }
            if bits & F::reserved(bits, level, &self.rules) != 0 {
                return Err(self.fault(code::PROTECTION | code::RESERVED));
            }
            all &= bits;
            any |= bits;
            let leaf = F::is_leaf(bits, level, &self.rules);
            let next = F::address(bits, level, leaf);
            if leaf {
                let allowed = Allowed {
                    write: all & WRITE != 0,
                    user: all & USER != 0,
                    execute: any & NO_EXECUTE == 0,
                };
                let by_key = self.key_forbids(bits, allowed.user);
                if by_key || !self.permits(allowed) {
                    let key = if by_key { code::KEY } else { 0 };
                    return Err(self.fault(code::PROTECTION | key));
                }
                let marked = all & ACCESSED != 0 && (!self.access.write || bits & DIRTY != 0);
                let inside = (1_u64 << F::shift(level)).wrapping_sub(1);
                let gpa = Gpa::new(next.value() | (self.gva.value() & inside));
                return Ok((gpa, marked));
            }
            table = next;
        }
        // The lowest level is all leaves, so the loop does not run out.
        Err(self.fault(0))
    }

    /// Returns whether the access is by user code.
    fn is_user(&self) -> bool {
        self.paging.cpl == 3 && !self.access.implicit
    }

    /// Returns whether what the entries allow is enough.
    fn permits(&self, allowed: Allowed) -> bool {
        let WalkAccess {
            write,
            execute,
            implicit,
        } = self.access;
        if execute && !allowed.execute {
            return false;
        }
        if self.is_user() {
            return allowed.user && (allowed.write || !write);
        }
        if write && !allowed.write && self.paging.cr0.contains(Cr0::WP) {
            return false;
        }
        if !allowed.user {
            return true;
        }
        if execute {
            return !self.paging.cr4.contains(Cr4::SMEP);
        }
        let exempt = self.paging.alignment_check && !implicit;
        !self.paging.cr4.contains(Cr4::SMAP) || exempt
    }

    /// Returns whether the protection key in the last entry, `leaf`, forbids the access. Keys are for data
    /// on user pages, whoever accesses it.
    fn key_forbids(&self, leaf: u64, user: bool) -> bool {
        const ACCESS_DISABLE: u32 = 1 << 0;
        const WRITE_DISABLE: u32 = 1 << 1;
        if self.paging.pkru == 0
            || !user
            || self.access.execute
            || !self.paging.efer.contains(Efer::LMA)
        {
            return false;
        }
        let rights = self.paging.pkru >> (2 * protection_key(leaf));
        let write = self.access.write && (self.is_user() || self.paging.cr0.contains(Cr0::WP));
        rights & ACCESS_DISABLE != 0 || write && rights & WRITE_DISABLE != 0
    }

    /// Sets the accessed bits on the way, and the dirty bit of the last entry on a write. Returns
    /// false if an entry had changed.
    fn mark_used<W: Word>(&self, visited: &[Option<Visited<W>>]) -> Result<bool, PageFault> {
        let mut way = visited.iter().flatten().peekable();
        while let Some(Visited { gpa, entry }) = way.next() {
            let bits: u64 = (*entry).into();
            let mut marked = bits | ACCESSED;
            if way.peek().is_none() && self.access.write {
                marked |= DIRTY;
            }
            // Tables in read-only memory stay as they are.
            if marked == bits || !self.memory.is_writable(*gpa) {
                continue;
            }
            let replaced = self
                .memory
                .replace(*gpa, *entry, W::truncate(marked))
                .map_err(|_| self.fault(0))?;
            if !replaced {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the page fault for this access, for the reason `why`.
    fn fault(&self, why: u32) -> PageFault {
        let mut error_code = why;
        if self.access.write {
            error_code |= code::WRITE;
        }
        if self.is_user() {
            error_code |= code::USER;
        }
        // Fetches are told apart only where something can forbid them.
        let told = self.paging.cr4.contains(Cr4::SMEP) || self.nx_in_use();
        if self.access.execute && told {
            error_code |= code::FETCH;
        }
        PageFault {
            error_code,
            gva: self.gva,
        }
    }

    /// Returns whether the tables have a bit that forbids execution, and it is on.
    fn nx_in_use(&self) -> bool {
        self.paging.efer.contains(Efer::NX) && self.paging.cr4.contains(Cr4::PAE)
    }
}

#[cfg(CONFIG_KUNIT = "y")]
#[path = "guest_walk/tests.rs"]
mod tests;
