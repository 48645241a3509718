// SPDX-License-Identifier: GPL-2.0

//! One vCPU's CPUID table: KVM_SET_CPUID2, KVM_GET_CPUID2 and the CPUID instruction.

use super::{
    feature::Feature,
    find,
    find_mut,
    xstate::XstateLayout,
    CpuidEntry, //
};
use core::ops::{
    Deref,
    DerefMut, //
};

/// State of a vCPU that shows in its CPUID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Runtime {
    /// CR4.OSXSAVE.
    pub(crate) osxsave: bool,
    /// CR4.PKE.
    pub(crate) pke: bool,
    /// The enable bit of IA32_APIC_BASE.
    pub(crate) apic_enabled: bool,
    /// The MWAIT bit of IA32_MISC_ENABLE, or `None` while KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT lets
    /// the CPUID bit alone.
    pub(crate) mwait: Option<bool>,
    /// XCR0.
    pub(crate) xcr0: u64,
    /// IA32_XSS.
    pub(crate) xss: u64,
}

/// User space's table cannot be taken: EINVAL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refused;

/// The CPUID table of one vCPU.
///
/// `S` is the list that holds the rows, which is the caller's to allocate. Its order and contents
/// are user space's but for the runtime bits.
pub(crate) struct GuestCpuid<S> {
    entries: S,
    /// The state that the runtime bits show.
    applied: Option<Runtime>,
}

impl<S> GuestCpuid<S>
where
    S: Deref<Target = [CpuidEntry]> + DerefMut,
{
    /// Returns the table with these rows, without runtime bits yet.
    #[must_use]
    pub(crate) fn new(entries: S) -> Self {
        Self {
            entries,
            applied: None,
        }
    }

    /// Returns the rows as KVM_GET_CPUID2 gives them, after [`Self::refresh`].
    #[must_use]
    pub(crate) fn entries(&self) -> &[CpuidEntry] {
        &self.entries
    }

    /// Brings the runtime bits up to date; costs a comparison if nothing changed.
    pub(crate) fn refresh(&mut self, runtime: &Runtime, layout: &XstateLayout) {
        if self.applied.as_ref() != Some(runtime) {
            apply(&mut self.entries, runtime, layout);
            self.applied = Some(*runtime);
        }
    }

    /// Takes `entries` as the table in place of the present one.
    ///
    /// Once the vCPU has run, or `frozen` for another reason, the table may only be replaced by an
    /// equal one: what was built on the old one is not built anew.
    ///
    /// # Errors
    ///
    /// [`Refused`] if the table may not change, or if it tells a width of linear addresses that
    /// paging does not have. The present table stays.
    pub(crate) fn replace(
        &mut self,
        mut entries: S,
        frozen: bool,
        runtime: &Runtime,
        layout: &XstateLayout,
    ) -> Result<(), Refused> {
        apply(&mut entries, runtime, layout);
        if frozen {
            self.refresh(runtime, layout);
            if !same(&self.entries, &entries) {
                return Err(Refused);
            }
        } else if !has_valid_linear_width(&entries) {
            return Err(Refused);
        }
        self.entries = entries;
        self.applied = Some(*runtime);
        Ok(())
    }

    /// Returns what CPUID answers to the guest as EAX, EBX, ECX and EDX, after [`Self::refresh`].
    #[must_use]
    pub(crate) fn cpuid(&self, function: u32, index: u32) -> [u32; 4] {
        match find(&self.entries, function, index) {
            Some(entry) => entry.regs(),
            None => self.missing(function, index),
        }
    }

    /// Returns whether a (sub)leaf has a row of its own.
    #[must_use]
    pub(crate) fn has(&self, function: u32, index: u32) -> bool {
        find(&self.entries, function, index).is_some()
    }

    /// Returns what CPUID answers for a (sub)leaf without a row.
    #[cold]
    fn missing(&self, function: u32, index: u32) -> [u32; 4] {
        let redirected = self.redirect(function);
        if let Some(entry) = redirected.and_then(|leaf| find(&self.entries, leaf, index)) {
            return entry.regs();
        }
        // Of the topology leaves, undefined subleaves still tell the subleaf and the x2APIC ID.
        let leaf = redirected.unwrap_or(function);
        if matches!(leaf, 0xb | 0x1f) {
            if let Some(entry) = find(&self.entries, leaf, 1) {
                return [0, 0, index & 0xff, entry.edx];
            }
        }
        [0; 4]
    }

    /// Returns the leaf that answers in place of `function` where that is out of range.
    ///
    /// Intel CPUs take the highest basic leaf; AMD's answer all zeroes. A leaf is in range if it
    /// is at most what the first leaf of its class tells in EAX: basic, extended, Centaur's, and
    /// each block of 256 leaves of a hypervisor.
    fn redirect(&self, function: u32) -> Option<u32> {
        let basic = find(&self.entries, 0, 0)?;
        if is_amd(basic) {
            return None;
        }
        let class = match function {
            0x4000_0000..=0x4fff_ffff => function & 0xffff_ff00,
            0xc000_0000.. => 0xc000_0000,
            _ => function & 0x8000_0000,
        };
        match find(&self.entries, class, 0) {
            Some(first) if function <= first.eax => None,
            _ => Some(basic.eax),
        }
    }
}

/// Returns whether leaf 0 names AMD or Hygon, whose CPUs follow AMD's rules.
fn is_amd(basic: &CpuidEntry) -> bool {
    const VENDORS: [&[u8; 12]; 3] = [b"AuthenticAMD", b"AMDisbetter!", b"HygonGenuine"];
    let [b0, b1, b2] = [basic.ebx, basic.edx, basic.ecx].map(u32::to_le_bytes);
    VENDORS.iter().any(|vendor| {
        let (first, rest) = vendor.split_at(4);
        let (second, third) = rest.split_at(4);
        first == b0 && second == b1 && third == b2
    })
}

/// Returns whether two tables have the same rows, whatever their padding holds.
fn same(a: &[CpuidEntry], b: &[CpuidEntry]) -> bool {
    let key = |entry: &CpuidEntry| (entry.function, entry.index, entry.flags, entry.regs());
    a.iter().map(key).eq(b.iter().map(key))
}

/// Returns whether the table tells a width of linear addresses that paging has, or none.
fn has_valid_linear_width(entries: &[CpuidEntry]) -> bool {
    find(entries, 0x8000_0008, 0).is_none_or(|entry| matches!((entry.eax >> 8) & 0xff, 0 | 48 | 57))
}

/// Writes the runtime bits into a table.
fn apply(entries: &mut [CpuidEntry], runtime: &Runtime, layout: &XstateLayout) {
    let mut set = |feature: Feature, on: bool| {
        let (leaf, index, reg) = feature.word().location();
        if let Some(entry) = find_mut(entries, leaf, index) {
            let word = entry.get_mut(reg);
            if on {
                *word |= feature.mask();
            } else {
                *word &= !feature.mask();
            }
        }
    };
    set(Feature::OSXSAVE, runtime.osxsave);
    set(Feature::APIC, runtime.apic_enabled);
    if let Some(mwait) = runtime.mwait {
        set(Feature::MWAIT, mwait);
    }
    set(Feature::OSPKE, runtime.pke);

    if let Some(entry) = find_mut(entries, 0xd, 0) {
        entry.ebx = layout.standard_size(runtime.xcr0);
    }
    if let Some(entry) = find_mut(entries, 0xd, 1) {
        if entry.eax & (Feature::XSAVEC.mask() | Feature::XSAVES.mask()) != 0 {
            entry.ebx = layout.compacted_size(runtime.xcr0 | runtime.xss);
        }
    }
}
