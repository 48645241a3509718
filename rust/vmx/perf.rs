// SPDX-License-Identifier: GPL-2.0

//! The host's performance counters, which count in guests only where perf was told to.
//!
//! Guests have no counters of their own. For events that exclude guests, or the host, perf tells the MSRs
//! that must have another value in the guest: IA32_PERF_GLOBAL_CTRL, for which a VMCS has fields and
//! controls; where these cannot be used, and for the others, there are the lists of MSRs that entry and
//! exit load. What differs in no MSR is switched in none.
//!
//! PEBS writes records to the host's linear addresses: perf stops it in the guest. Processor trace goes on
//! in guests as the host has it, as with kvm_intel's default: no control here concerns it.

use super::{
    controls::{
        entry,
        exit, //
    },
    field,
    host_state,
    vmcs::CurrentVmcs, //
};
use crate::linux::{
    guest::PerfMsr,
    page::physical_address, //
};
use kernel::prelude::*;

/// IA32_PERF_GLOBAL_CTRL.
const GLOBAL_CTRL: u32 = 0x38f;
/// IA32_PEBS_ENABLE.
const PEBS_ENABLE: u32 = 0x3f1;

/// The most MSRs in a list.
const MAX: usize = 16;

/// Returns whether a CPU loses IA32_PERF_GLOBAL_CTRL if a VM exit loads it by the control: some of the
/// Nehalem family do. `signature` is EAX of CPUID leaf 1.
pub(super) const fn loses_global_ctrl(signature: u32) -> bool {
    let family = signature >> 8 & 0xf;
    let model = signature >> 4 & 0xf | signature >> 12 & 0xf0;
    family == 6 && matches!(model, 26 | 30 | 37 | 44 | 46)
}

/// An element of a list of MSRs, as the CPU reads it.
#[repr(C, align(16))]
#[derive(Clone, Copy, Default)]
struct Element {
    index: u32,
    reserved: u32,
    value: u64,
}

/// The lists of a VMCS.
struct Lists {
    entry: [Element; MAX],
    exit: [Element; MAX],
}

/// An MSR with its two values.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Pair {
    index: u32,
    guest: u64,
    host: u64,
}

/// What is to be switched.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Plan {
    /// IA32_PERF_GLOBAL_CTRL, if the controls switch it.
    global_ctrl: Option<Pair>,
    list: [Pair; MAX],
    count: usize,
}

impl Plan {
    /// Returns what switches `msrs`; `controls` says whether the controls can be used.
    fn new(msrs: impl Iterator<Item = Pair>, controls: bool) -> Self {
        let mut plan = Self::default();
        for pair in msrs.filter(|pair| pair.guest != pair.host) {
            if pair.index == GLOBAL_CTRL && controls {
                plan.global_ctrl = Some(pair);
            } else if let Some(place) = plan.list.get_mut(plan.count) {
                *place = pair;
                plan.count = plan.count.wrapping_add(1);
            }
        }
        plan
    }

    fn list(&self) -> impl Iterator<Item = &Pair> {
        self.list.iter().take(self.count)
    }
}

/// What the VMCS of a vCPU switches for perf.
pub(crate) struct PerfSwitch {
    plan: Plan,
    lists: KBox<Lists>,
}

impl PerfSwitch {
    /// Returns one that switches nothing.
    pub(crate) fn new() -> Result<Self> {
        let none = [Element::default(); MAX];
        Ok(Self {
            plan: Plan::default(),
            lists: KBox::new(
                Lists {
                    entry: none,
                    exit: none,
                },
                GFP_KERNEL_ACCOUNT,
            )?,
        })
    }

    /// Makes the lists those of the VMCS. They must live as long as the VMCS is used.
    pub(crate) fn attach(&self, vmcs: &CurrentVmcs<'_>) {
        let (entry, exit) = (&raw const self.lists.entry, &raw const self.lists.exit);
        vmcs.write(
            field::VM_ENTRY_MSR_LOAD_ADDR,
            physical_address(entry).value(),
        );
        vmcs.write(field::VM_EXIT_MSR_LOAD_ADDR, physical_address(exit).value());
    }

    /// Has the entry that follows, and its exit, switch `msrs`; interrupts are off.
    pub(crate) fn follow(&mut self, vmcs: &CurrentVmcs<'_>, msrs: &[PerfMsr], controls: bool) {
        let pairs = msrs.iter().map(|msr| Pair {
            index: msr.msr,
            guest: msr.guest,
            host: msr.host,
        });
        let plan = Plan::new(pairs, controls);
        if plan != self.plan {
            self.write(vmcs, &plan);
            self.plan = plan;
        }
        if plan.list().any(|pair| pair.index == PEBS_ENABLE) {
            // A record may be on its way for some time after it is off, and must not come to the guest.
            host_state::stop_pebs();
        }
    }

    fn write(&mut self, vmcs: &CurrentVmcs<'_>, plan: &Plan) {
        if let Some(pair) = plan.global_ctrl {
            vmcs.write(field::GUEST_PERF_GLOBAL_CTRL, pair.guest);
            vmcs.write(field::HOST_PERF_GLOBAL_CTRL, pair.host);
        }
        if plan.global_ctrl.is_some() != self.plan.global_ctrl.is_some() {
            if plan.global_ctrl.is_some() {
                vmcs.set_bits(field::VM_ENTRY_CONTROLS, entry::LOAD_PERF_GLOBAL_CTRL);
                vmcs.set_bits(field::VM_EXIT_CONTROLS, exit::LOAD_PERF_GLOBAL_CTRL);
            } else {
                vmcs.clear_bits(field::VM_ENTRY_CONTROLS, entry::LOAD_PERF_GLOBAL_CTRL);
                vmcs.clear_bits(field::VM_EXIT_CONTROLS, exit::LOAD_PERF_GLOBAL_CTRL);
            }
        }
        self.lists.fill(plan);
        // CAST: At most MAX.
        let count = plan.count as u32;
        vmcs.write(field::VM_ENTRY_MSR_LOAD_COUNT, count);
        vmcs.write(field::VM_EXIT_MSR_LOAD_COUNT, count);
    }
}

impl Lists {
    fn fill(&mut self, plan: &Plan) {
        let element = |index, value| Element {
            index,
            reserved: 0,
            value,
        };
        let places = self.entry.iter_mut().zip(self.exit.iter_mut());
        for (pair, (entry, exit)) in plan.list().zip(places) {
            *entry = element(pair.index, pair.guest);
            *exit = element(pair.index, pair.host);
        }
    }
}

#[kunit_tests(kvm_rs_perf)]
mod tests {
    use super::*;

    fn pair(index: u32, guest: u64, host: u64) -> Pair {
        Pair { index, guest, host }
    }

    #[test]
    fn what_is_the_same_is_not_switched() {
        let msrs = [pair(GLOBAL_CTRL, 3, 3), pair(PEBS_ENABLE, 0, 0)];
        assert_eq!(Plan::new(msrs.into_iter(), true), Plan::default());
        assert_eq!(Plan::new(msrs.into_iter(), false), Plan::default());
        assert_eq!(Plan::new([].into_iter(), true), Plan::default());
    }

    #[test]
    fn controls_are_preferred() {
        let msrs = [pair(GLOBAL_CTRL, 1, 3), pair(PEBS_ENABLE, 0, 2)];
        let plan = Plan::new(msrs.into_iter(), true);
        assert_eq!(plan.global_ctrl, Some(msrs[0]));
        assert!(plan.list().eq([&msrs[1]]));
        let plan = Plan::new(msrs.into_iter(), false);
        assert_eq!(plan.global_ctrl, None);
        assert!(plan.list().eq(msrs.iter()));
    }

    #[test]
    fn lists_are_as_the_cpu_reads_them() {
        assert_eq!(core::mem::size_of::<Element>(), 16);
        let mut switch = PerfSwitch::new().unwrap();
        let msrs = [pair(GLOBAL_CTRL, 1, 3), pair(PEBS_ENABLE, 0, 2)];
        let plan = Plan::new(msrs.into_iter(), false);
        switch.lists.fill(&plan);
        let words = |e: &Element| (e.index, e.reserved, e.value);
        assert_eq!(words(&switch.lists.entry[0]), (GLOBAL_CTRL, 0, 1));
        assert_eq!(words(&switch.lists.exit[0]), (GLOBAL_CTRL, 0, 3));
        assert_eq!(words(&switch.lists.entry[1]), (PEBS_ENABLE, 0, 0));
        assert_eq!(words(&switch.lists.exit[1]), (PEBS_ENABLE, 0, 2));
        let address = physical_address(&raw const switch.lists.exit).value();
        assert_eq!(address % 16, 0);
    }

    #[test]
    fn no_more_than_fit() {
        let msrs = (0..40u32).map(|n| pair(0x186 + n, 0, 1));
        let plan = Plan::new(msrs, true);
        assert_eq!(plan.count, MAX);
        assert_eq!(plan.list().count(), MAX);
    }

    #[test]
    fn models_that_lose_it() {
        // Nehalem, Lynnfield and Arrandale do; Penryn has no such control, Haswell no such fault.
        assert!(loses_global_ctrl(0x0001_06a5));
        assert!(loses_global_ctrl(0x0001_06e5));
        assert!(loses_global_ctrl(0x0002_0652));
        assert!(!loses_global_ctrl(0x0003_06c3));
        assert!(!loses_global_ctrl(0x0000_0f29));
    }
}
