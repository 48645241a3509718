// SPDX-License-Identifier: GPL-2.0

//! Guest memory that CPUs need and clients do not give: where there is no unrestricted guest, a TSS for
//! real mode and a page table that maps each address to itself, for which the client has a place; and
//! the page that stands for the registers of local APICs.
//!
//! As in KVM, it is memory of the client's process that the kernel maps, in slots that the client does
//! not see in its numbers but meets when it wants another one at the same place.

use super::Vm;
use crate::{
    linux::{
        page::PAGE_BYTES,
        user_map::UserMap, //
    },
    memory::{
        FilePiece,
        Region,
        APIC_ACCESS_SLOT,
        USER_SLOTS, //
    },
    mmu::{
        Root,
        APIC_ACCESS, //
    },
    vcpu::restricted::{
        real_mode::{
            TSS_PORT_MAP,
            TSS_PORT_MAP_FIELD,
            TSS_SIZE, //
        },
        Nonpaged, //
    },
    x86::addr::{
        Gpa,
        Hva, //
    }, //
};
use kernel::{
    prelude::*,
    sync::atomic::Relaxed, //
};

/// Pages of the TSS.
const TSS_PAGES: u64 = 3;

/// The highest place of the TSS: it lies below 4 GiB.
const LAST_TSS: u64 = (1 << 32) - TSS_PAGES * PAGE_BYTES;

/// Where the identity map is if the client does not say.
const IDENTITY_MAP: u64 = 0xfffb_c000;

/// The slot of the TSS.
const TSS_SLOT: u32 = USER_SLOTS as u32;

/// The slot of the identity map; between the two is that of the APIC-access page.
const IDENTITY_MAP_SLOT: u32 = USER_SLOTS as u32 + 2;

/// Stands for the TSS's address while there is none.
pub(super) const NO_TSS: u64 = !0;

/// The memory in the client's process, and the place of the identity map.
#[derive(Default)]
pub(super) struct InternalMemory {
    tss: Option<UserMap>,
    identity_map: Option<UserMap>,
    apic_access: Option<UserMap>,
    /// The place that the client wants; 0 is the usual one.
    identity_map_address: u64,
}

impl Vm {
    /// Gives the TSS of real mode its place.
    ///
    /// `EINVAL` for one that does not lie below 4 GiB or in the way of a slot, `EEXIST` if it has one. Where
    /// the CPU needs no TSS nothing happens.
    pub(crate) fn set_tss_address(&self, address: u64) -> Result {
        if address > LAST_TSS {
            return Err(EINVAL);
        }
        if self.capabilities().unrestricted_guest() {
            return Ok(());
        }
        let mut config = self.config.lock();
        if config.internal.tss.is_some() {
            return Err(EEXIST);
        }
        let map = self.map_internal(TSS_SLOT, address, TSS_PAGES)?;
        let memory = self.memory();
        let offset = Gpa::new(address + TSS_PORT_MAP_FIELD);
        memory.write(offset, &TSS_PORT_MAP.to_le_bytes())?;
        // A byte of ones ends the map for ports.
        memory.write(Gpa::new(address + TSS_SIZE as u64 - 1), &[0xff])?;
        config.internal.tss = Some(map);
        self.tss_address.store(address, Relaxed);
        Ok(())
    }

    /// Returns where the TSS of real mode is, if it has a place.
    pub(crate) fn tss_address(&self) -> Option<u64> {
        Some(self.tss_address.load(Relaxed)).filter(|&address| address != NO_TSS)
    }

    /// Gives the identity map its place, before there is a vCPU; else `EINVAL`, and `address` is not asked.
    pub(crate) fn set_identity_map_address(&self, address: impl FnOnce() -> Result<u64>) -> Result {
        let mut config = self.config.lock();
        if config.created > 0 {
            return Err(EINVAL);
        }
        config.internal.identity_map_address = address()?;
        Ok(())
    }

    /// Returns what hardware has for CR3 while a guest does not page, `None` if it is the guest's own.
    pub(super) fn nonpaged(&self, internal: &mut InternalMemory) -> Result<Option<Nonpaged>> {
        Ok(match self.mmu.root() {
            Root::Shadow(cr3) => Some(Nonpaged::Shadow(cr3)),
            Root::Ept(_) if self.capabilities().unrestricted_guest() => None,
            Root::Ept(_) => Some(Nonpaged::Identity(self.identity_map(internal)?)),
        })
    }

    /// Returns the address of the identity map, which is made for the first vCPU.
    fn identity_map(&self, internal: &mut InternalMemory) -> Result<u64> {
        if internal.identity_map_address == 0 {
            internal.identity_map_address = IDENTITY_MAP;
        }
        let address = internal.identity_map_address;
        if internal.identity_map.is_some() {
            return Ok(address);
        }
        let map = self.map_internal(IDENTITY_MAP_SLOT, address, 1)?;
        for index in 0..1024_u32 {
            // Present, writable, for user code, accessed, dirty, and of 4 MiB.
            let entry = index << 22 | 0xe7;
            let place = Gpa::new(address + u64::from(index) * 4);
            self.memory().write(place, &entry.to_le_bytes())?;
        }
        internal.identity_map = Some(map);
        Ok(address)
    }

    /// Makes the APIC-access page for the first vCPU with a local APIC, where the CPU uses one.
    ///
    /// `EEXIST` if the client has a slot in its place.
    pub(super) fn provide_apic_access(&self, internal: &mut InternalMemory) -> Result {
        if internal.apic_access.is_none() && self.capabilities().flexpriority() {
            let slot = u32::from(APIC_ACCESS_SLOT);
            internal.apic_access = Some(self.map_internal(slot, APIC_ACCESS.value(), 1)?);
        }
        Ok(())
    }

    /// Makes an internal slot of zeroed memory.
    fn map_internal(&self, slot: u32, address: u64, pages: u64) -> Result<UserMap> {
        let size = pages * PAGE_BYTES;
        let map = UserMap::new(size)?;
        self.mmu.set_internal_region(&Region {
            slot,
            flags: 0,
            gpa: Gpa::new(address),
            size,
            hva: Hva::new(map.address()),
            file: FilePiece::default(),
        })?;
        Ok(map)
    }
}
