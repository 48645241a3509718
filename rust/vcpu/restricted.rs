// SPDX-License-Identifier: GPL-2.0

//! A guest on a CPU that is not "unrestricted": one that enters guests only with paging on and in
//! protected mode.
//!
//! What such a guest believes and what hardware has differ more than by the bits that the VMM owns:
//!
//! | the guest is | hardware has |
//! |---|---|
//! | without paging | paging, on tables that map each address to itself: below EPT one page of 4 MiB entries in guest memory, whose place the client chose; without EPT the tables of the MMU |
//! | in real mode | virtual-8086 mode (see [`real_mode`]) |
//! | in a state that VM entry refuses | not run: the guest's instructions are executed in software until it is out of there (see [`invalid`]) |
//! | with paging, but there is no EPT | not run: this would need shadow paging, and KVM_RUN fails |
//!
//! [`Restricted`] keeps what the guest believes. On an unrestricted CPU a vCPU has none of it.

pub(super) mod invalid;
pub(crate) mod real_mode;

use self::real_mode::RealMode;
use super::{
    control,
    state::State, //
};
use crate::{
    vmx::{
        controls::CR3_EXITING,
        field::{
            self,
            Natural, //
        },
        vmcs::CurrentVmcs, //
    },
    x86::{
        control_regs::{
            Cr0,
            Cr4,
            Efer, //
        },
        segment::Segment,
        segment_register::SegmentRegister,
        segment_rules, //
    }, //
};

/// What hardware has for CR3 while the guest has paging off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Nonpaged {
    /// The guest-physical address of the identity map, for 32-bit paging. EPT is below it.
    Identity(u64),
    /// The root of the MMU's own tables, for PAE paging. There is no EPT.
    Shadow(u64),
}

/// What the guest believes, where hardware has something else.
pub(crate) struct Restricted {
    nonpaged: Nonpaged,
    /// CR0.PG.
    paging: bool,
    /// CR3, while that of the VMCS is ours.
    cr3: u64,
    /// The PDPTEs, which a VMCS has a place for only with EPT.
    pdptes: [u64; 4],
    real_mode: Option<RealMode>,
}

impl Restricted {
    /// Returns what a guest believes that was not reset yet.
    pub(crate) fn new(nonpaged: Nonpaged) -> Self {
        Self {
            nonpaged,
            paging: false,
            cr3: 0,
            pdptes: [0; 4],
            real_mode: None,
        }
    }

    /// Returns whether the guest runs on the MMU's own tables.
    pub(super) fn is_shadow(&self) -> bool {
        matches!(self.nonpaged, Nonpaged::Shadow(_))
    }

    /// Returns whether CR3 of the VMCS is ours.
    fn owns_cr3(&self) -> bool {
        self.is_shadow() || !self.paging
    }

    /// Returns our CR3.
    fn own_cr3(&self) -> u64 {
        match self.nonpaged {
            Nonpaged::Identity(cr3) | Nonpaged::Shadow(cr3) => cr3,
        }
    }
}

/// Bits of CR0 that such a guest changes without an exit, of those that others do: in real mode AM must
/// not check alignment, and on the MMU's own tables WP must guard pages that only can be read.
fn cr0_guest_owned(nonpaged: Nonpaged) -> Cr0 {
    let owned = control::CR0_GUEST_OWNED.without(Cr0::AM);
    match nonpaged {
        Nonpaged::Identity(_) => owned,
        Nonpaged::Shadow(_) => owned.without(Cr0::WP),
    }
}

/// Bits of CR4 that are not those of hardware in real mode.
const CR4_OF_MODE: Cr4 = Cr4::VME.with(Cr4::TSD);

/// Bits of CR4 that have no effect without paging, and must have none.
const CR4_OF_PAGING: Cr4 = Cr4::SMEP.with(Cr4::SMAP).with(Cr4::PKE);

/// The bits of CR0 and CR4 that a guest changes without an exit.
#[derive(Clone, Copy, Default)]
pub(crate) struct GuestOwned {
    pub(crate) cr0: Cr0,
    pub(crate) cr4: Cr4,
}

impl State {
    /// Returns the bits that this guest changes without an exit.
    pub(super) fn guest_owned(&self) -> GuestOwned {
        let cr4 = control::cr4_guest_owned(&self.features);
        match &self.restricted {
            None => GuestOwned {
                cr0: control::CR0_GUEST_OWNED,
                cr4,
            },
            Some(restricted) => GuestOwned {
                cr0: cr0_guest_owned(restricted.nonpaged),
                cr4: cr4.without(CR4_OF_MODE),
            },
        }
    }

    /// Returns whether the guest runs on the MMU's own tables.
    pub(super) fn is_shadow(&self) -> bool {
        self.restricted
            .as_ref()
            .is_some_and(|restricted| restricted.is_shadow())
    }

    /// Returns CR0 for hardware, to be written at once; `hardware` is what an unrestricted guest has.
    ///
    /// The read shadow holds the guest's new CR0, `value`.
    pub(super) fn restrict_cr0(
        &mut self,
        vmcs: &CurrentVmcs<'_>,
        value: Cr0,
        hardware: Cr0,
    ) -> Cr0 {
        let Some(restricted) = self.restricted.as_mut() else {
            return hardware;
        };
        self.events.entry_unchecked = true;
        let paging = value.contains(Cr0::PG);
        let switched = paging != restricted.paging;
        if !restricted.is_shadow() && switched {
            if paging {
                vmcs.write(field::GUEST_CR3, Natural(restricted.cr3));
            } else {
                restricted.cr3 = vmcs.read(field::GUEST_CR3).0;
            }
        }
        restricted.paging = paging;
        let (owns_cr3, own_cr3) = (restricted.owns_cr3(), restricted.own_cr3());
        let shadow = restricted.is_shadow();
        let real_mode = restricted.real_mode.is_some();
        if owns_cr3 {
            vmcs.write(field::GUEST_CR3, Natural(own_cr3));
        }
        self.set_primary(vmcs, CR3_EXITING, owns_cr3);

        let protected = value.contains(Cr0::PE);
        if protected && real_mode {
            self.leave_real_mode(vmcs);
        } else if !protected && !real_mode {
            self.enter_real_mode(vmcs);
        }
        if switched || protected == real_mode {
            self.load_cr4(vmcs, self.cr4(vmcs));
        }
        hardware
            .with(Cr0::PE)
            .with(Cr0::PG)
            .assign(Cr0::WP, shadow || hardware.contains(Cr0::WP))
            .assign(Cr0::AM, protected && hardware.contains(Cr0::AM))
    }

    /// Returns CR4 for hardware; `hardware` is what an unrestricted guest has.
    pub(super) fn restrict_cr4(&self, hardware: Cr4) -> Cr4 {
        let Some(restricted) = &self.restricted else {
            return hardware;
        };
        let mut cr4 = hardware;
        if restricted.real_mode.is_some() {
            // With VME, INT n goes through the interrupt vector table where the TSS says so.
            cr4 = cr4.with(Cr4::VME).without(Cr4::TSD.with(Cr4::UMIP));
        }
        if !restricted.paging {
            cr4 = cr4.without(CR4_OF_PAGING);
        }
        match restricted.nonpaged {
            Nonpaged::Shadow(_) => cr4.with(Cr4::PAE),
            Nonpaged::Identity(_) if restricted.paging => cr4,
            Nonpaged::Identity(_) => cr4.without(Cr4::PAE).with(Cr4::PSE),
        }
    }

    /// Writes EFER for hardware.
    pub(super) fn write_hardware_efer(&self, vmcs: &CurrentVmcs<'_>, value: Efer) {
        let hardware = match &self.restricted {
            None => value,
            // The guest has the host's.
            Some(restricted) if restricted.is_shadow() => return,
            // With paging on, VM entry wants LME and LMA to be the same.
            Some(_) if !value.contains(Efer::LMA) => value.without(Efer::LME),
            Some(_) => value,
        };
        vmcs.write(field::GUEST_EFER, hardware.value());
    }

    /// Writes IA32_PAT for hardware.
    pub(super) fn write_hardware_pat(&self, vmcs: &CurrentVmcs<'_>, value: u64) {
        // On the MMU's own tables the guest has the host's.
        if !self.is_shadow() {
            vmcs.write(field::GUEST_PAT, value);
        }
    }

    /// Returns CR3 as the guest sees it.
    pub(crate) fn cr3(&self, vmcs: &CurrentVmcs<'_>) -> u64 {
        match &self.restricted {
            Some(restricted) if restricted.owns_cr3() => restricted.cr3,
            _ => vmcs.read(field::GUEST_CR3).0,
        }
    }

    /// Loads CR3 as the guest sees it.
    pub(crate) fn load_cr3(&mut self, vmcs: &CurrentVmcs<'_>, value: u64) {
        match &mut self.restricted {
            Some(restricted) if restricted.owns_cr3() => restricted.cr3 = value,
            _ => vmcs.write(field::GUEST_CR3, Natural(value)),
        }
    }

    /// Returns the PDPTEs, which mean something only in PAE paging.
    pub(crate) fn pdptes(&self, vmcs: &CurrentVmcs<'_>) -> [u64; 4] {
        match &self.restricted {
            Some(restricted) if restricted.is_shadow() => restricted.pdptes,
            _ => vmcs.pdptes(),
        }
    }

    /// Loads the PDPTEs.
    pub(crate) fn load_pdptes(&mut self, vmcs: &CurrentVmcs<'_>, entries: [u64; 4]) {
        match &mut self.restricted {
            Some(restricted) if restricted.is_shadow() => restricted.pdptes = entries,
            _ => vmcs.set_pdptes(entries),
        }
    }

    /// Returns a segment register as the guest sees it.
    pub(crate) fn segment(&self, vmcs: &CurrentVmcs<'_>, register: SegmentRegister) -> Segment {
        match self.real_mode() {
            Some(real_mode) => real_mode.segment(vmcs, register),
            None => vmcs.segment(register),
        }
    }

    /// Loads a segment register.
    pub(crate) fn load_segment(
        &mut self,
        vmcs: &CurrentVmcs<'_>,
        register: SegmentRegister,
        segment: &Segment,
    ) {
        let Some(restricted) = &mut self.restricted else {
            vmcs.set_segment(register, segment);
            return;
        };
        self.events.entry_unchecked = true;
        match &mut restricted.real_mode {
            Some(real_mode) => real_mode.load_segment(vmcs, register, segment),
            None => vmcs.set_segment(register, segment),
        }
    }

    /// Returns the linear address of a segment's first byte.
    pub(crate) fn segment_base(&self, vmcs: &CurrentVmcs<'_>, register: SegmentRegister) -> u64 {
        match self.real_mode() {
            Some(real_mode) => real_mode.segment(vmcs, register).base,
            None => vmcs.segment_base(register),
        }
    }

    /// Loads the linear address of a segment's first byte, and nothing else of it.
    pub(crate) fn load_segment_base(
        &mut self,
        vmcs: &CurrentVmcs<'_>,
        register: SegmentRegister,
        base: u64,
    ) {
        let segment = Segment {
            base,
            ..self.segment(vmcs, register)
        };
        self.load_segment(vmcs, register, &segment);
    }

    /// Returns all segment registers.
    pub(crate) fn segments(&self, vmcs: &CurrentVmcs<'_>) -> segment_rules::Segments {
        SegmentRegister::ALL.map(|register| self.segment(vmcs, register))
    }

    /// Has the next entry look again whether it can be.
    pub(crate) fn recheck_entry(&mut self) {
        self.events.entry_unchecked = self.restricted.is_some();
    }
}
