// SPDX-License-Identifier: GPL-2.0

//! Flushes owed: which cached translations a vCPU may not use, and the instructions that drop them.
//!
//! Nothing on ordinary entries and exits drops translations: EPT entries are tagged with the EPTP, the
//! others with VPID and EPTP. Two events make what is cached stale, and each leaves a debt that the
//! vCPU pays before its next entry:
//!
//! * The vCPU comes to a CPU where it was not last: what that CPU cached for it, or for the VPID's last
//!   owner, may be from another time. It owes an INVVPID for its VPID, and an INVEPT for the EPTP, whose
//!   earlier flushes went to the CPUs where vCPUs were running.
//! * The MMU took away or changed an entry: each vCPU owes an INVEPT; or an INVVPID, where guests run on
//!   shadow tables, which are cached as linear translations.
//!
//! With VPIDs off VM entry and exit flush linear and combined translations by themselves, and nothing
//! but the INVEPT is owed.

use super::{
    capability::Capabilities,
    instruction::{
        self,
        Invalidate, //
    },
};
use crate::mmu::Root;
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// How often each flush was executed, since the module was loaded.
pub(crate) struct FlushCounters {
    /// INVEPT, single-context.
    pub(crate) invept_single: Atomic<u64>,
    /// INVEPT, all-context.
    pub(crate) invept_all: Atomic<u64>,
    /// INVVPID, single-context.
    pub(crate) invvpid_single: Atomic<u64>,
    /// INVVPID, all-context.
    pub(crate) invvpid_all: Atomic<u64>,
}

/// The module's counters.
pub(crate) static FLUSHES: FlushCounters = FlushCounters {
    invept_single: Atomic::new(0),
    invept_all: Atomic::new(0),
    invvpid_single: Atomic::new(0),
    invvpid_all: Atomic::new(0),
};

/// The flushes that a vCPU must do before it enters its guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a flush that is owed must be paid before the next entry"]
pub(crate) struct Owed {
    /// Guest-physical mappings under the VM's EPTP.
    pub(crate) ept: bool,
    /// Mappings with the vCPU's VPID.
    pub(crate) vpid: bool,
}

impl Owed {
    /// What a vCPU owes on a CPU that it was not last on.
    pub(crate) const ALL: Self = Self {
        ept: true,
        vpid: true,
    };

    /// Nothing.
    pub(crate) const NONE: Self = Self {
        ept: false,
        vpid: false,
    };

    /// What a vCPU owes when translations have left the tables that it runs on.
    pub(crate) fn add_stale_tables(&mut self, root: Root) {
        match root {
            Root::Ept(_) => self.ept = true,
            Root::Shadow(_) => self.vpid = true,
        }
    }

    /// Returns whether nothing is owed.
    #[inline]
    pub(crate) const fn is_none(self) -> bool {
        !self.ept && !self.vpid
    }

    /// Executes the flushes on this CPU, where the vCPU is about to be entered, and owes nothing.
    ///
    /// Preemption is off and the CPU in VMX operation, as the caller has a current VMCS.
    #[cold]
    pub(super) fn pay(&mut self, capabilities: &Capabilities, root: Root, vpid: Option<u16>) {
        if let (true, Root::Ept(eptp), Some(kind)) = (self.ept, root, capabilities.invept()) {
            count(kind, &FLUSHES.invept_single, &FLUSHES.invept_all);
            // SAFETY: The CPU offers this type, and is in VMX root operation.
            let result = unsafe { instruction::invept(kind, eptp) };
            kernel::warn_on!(result.is_err());
        }
        if self.vpid {
            if let (Some(kind), Some(vpid)) = (capabilities.invvpid(), vpid) {
                count(kind, &FLUSHES.invvpid_single, &FLUSHES.invvpid_all);
                // SAFETY: The CPU offers this type, and is in VMX root operation.
                let result = unsafe { instruction::invvpid(kind, vpid) };
                kernel::warn_on!(result.is_err());
            }
        }
        *self = Self::NONE;
    }
}

/// Counts a flush of this type.
fn count(kind: Invalidate, single: &Atomic<u64>, all: &Atomic<u64>) {
    let counter = match kind {
        Invalidate::SingleContext => single,
        Invalidate::AllContext => all,
    };
    counter.add(1, Relaxed);
}
