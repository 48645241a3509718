// SPDX-License-Identifier: GPL-2.0

//! Loading segment registers: descriptors and the checks of them.

use super::{
    bus::{
        Bus,
        Fault,
        Mode,
        Segment,
        Stop, //
    },
    execute::Execution,
    system::{
        rights,
        SegmentRegister,
        SystemSegment,
        Table, //
    },
};

/// Vector of the fault for an invalid segment.
const GENERAL_PROTECTION: u8 = 13;
/// Vector of the fault for a segment that is not present.
const NOT_PRESENT: u8 = 11;
/// Vector of the fault for a stack segment that is not present.
const STACK_FAULT: u8 = 12;

/// Bit 40 of a descriptor: the segment was used.
const ACCESSED: u64 = 1 << 40;
/// Bit 41 of a TSS descriptor: the task is busy.
const BUSY: u64 = 1 << 41;

/// How code gets to another code segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transfer {
    /// A far `jmp` or `call`.
    Branch,
    /// A far `ret` or `iret`.
    Return,
}

/// A value for a segment register, and what else its load does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    name: Name,
    value: SegmentRegister,
    /// The address of the descriptor's type byte and its new value, if it changes.
    mark: Option<(u64, u8)>,
}

/// Any segment register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Segment(Segment),
    System(SystemSegment),
}

impl Load {
    /// Does the load. It fails only if the mark cannot be written, and then changes nothing.
    pub(super) fn commit<B: Bus>(&self, bus: &mut B) -> Result<(), Stop> {
        self.mark(bus)?;
        self.set(bus);
        Ok(())
    }

    /// Marks the descriptor accessed or busy.
    pub(super) fn mark<B: Bus>(&self, bus: &mut B) -> Result<(), Stop> {
        match self.mark {
            Some((linear, data)) => bus.write_table(linear, data),
            None => Ok(()),
        }
    }

    /// Sets the register.
    pub(super) fn set<B: Bus>(&self, bus: &mut B) {
        match self.name {
            Name::Segment(name) => bus.set_segment(name, &self.value),
            Name::System(name) => bus.set_system_segment(name, &self.value),
        }
    }
}

/// Returns a fault with the error code that names `selector`.
fn selector_fault(vector: u8, selector: u16) -> Stop {
    Stop::Fault(Fault::with_error_code(vector, u32::from(selector & !3)))
}

/// Returns the segment that real mode makes of `selector`: the rest stays as it was in `old`.
pub(super) fn real(old: &SegmentRegister, selector: u16) -> SegmentRegister {
    // Present data that can be written, where there was nothing.
    const USABLE: u32 = 0x93;
    let rights = if old.rights & rights::UNUSABLE == 0 {
        old.rights
    } else {
        USABLE
    };
    SegmentRegister {
        selector,
        base: u64::from(selector) << 4,
        limit: old.limit,
        rights,
    }
}

/// Returns the segment that virtual-8086 mode makes of `selector`.
fn virtual_8086(selector: u16) -> SegmentRegister {
    SegmentRegister {
        selector,
        base: u64::from(selector) << 4,
        limit: 0xffff,
        rights: 0xf3,
    }
}

/// A descriptor in a table.
#[derive(Clone, Copy)]
struct Descriptor {
    linear: u64,
    low: u64,
}

impl Descriptor {
    /// Returns the access rights, as in [`SegmentRegister::rights`].
    fn rights(&self) -> u32 {
        // CAST: the mask leaves 16 bits.
        ((self.low >> 40) & 0xf0ff) as u32
    }

    /// Returns whether all bits of `mask` are set in the access rights.
    fn has(&self, mask: u32) -> bool {
        self.rights() & mask == mask
    }

    /// Returns the privilege level.
    fn dpl(&self) -> u8 {
        // CAST: two bits.
        ((self.rights() >> rights::DPL_SHIFT) & 3) as u8
    }

    /// Returns the four type bits.
    fn kind(&self) -> u32 {
        self.rights() & 0xf
    }

    /// Returns the limit in bytes.
    fn limit(&self) -> u32 {
        // CAST: 20 bits.
        let raw = (self.low & 0xffff | (self.low >> 32) & 0xf_0000) as u32;
        if self.has(rights::G) {
            (raw << 12) | 0xfff
        } else {
            raw
        }
    }

    /// Returns the low 32 bits of the base.
    fn base(&self) -> u64 {
        ((self.low >> 16) & 0xff_ffff) | ((self.low >> 56) << 24)
    }

    /// Returns the value that a register has when it has loaded this descriptor with `mark` set.
    fn load(&self, name: Name, selector: u16, mark: u64) -> Load {
        let marked = Self {
            low: self.low | mark,
            ..*self
        };
        Load {
            name,
            value: SegmentRegister {
                selector,
                base: self.base(),
                limit: self.limit(),
                rights: marked.rights(),
            },
            // CAST: the type byte.
            mark: (marked.low != self.low)
                .then(|| (self.linear.wrapping_add(5), (marked.low >> 40) as u8)),
        }
    }
}

impl<B: Bus> Execution<'_, B> {
    /// Returns whether segments come from descriptors in the current mode.
    pub(super) fn has_descriptors(&self) -> bool {
        !matches!(self.bus.mode(), Mode::Real | Mode::Virtual8086)
    }

    /// Returns the segment that `selector` is in the current mode without descriptors.
    fn without_descriptor(&mut self, name: Segment, selector: u16) -> Load {
        let value = if self.bus.mode() == Mode::Real {
            real(&self.bus.segment(name), selector)
        } else {
            virtual_8086(selector)
        };
        Load {
            name: Name::Segment(name),
            value,
            mark: None,
        }
    }

    /// Reads the descriptor that `selector` selects, which is not null, of `size` bytes.
    fn descriptor(&mut self, selector: u16, size: u32) -> Result<Descriptor, Stop> {
        let (base, limit) = if selector & 4 == 0 {
            let table = self.bus.table(Table::Global);
            (table.base, u32::from(table.limit))
        } else {
            let table = self.bus.system_segment(SystemSegment::Ldt);
            if table.rights & rights::UNUSABLE != 0 {
                return Err(selector_fault(GENERAL_PROTECTION, selector));
            }
            (table.base, table.limit)
        };
        let offset = u32::from(selector & !7);
        if offset.saturating_add(size).saturating_sub(1) > limit {
            return Err(selector_fault(GENERAL_PROTECTION, selector));
        }
        let linear = base.wrapping_add(u64::from(offset));
        let mut data = [0; 8];
        self.bus.read_table(linear, &mut data)?;
        Ok(Descriptor {
            linear,
            low: u64::from_le_bytes(data),
        })
    }

    /// Returns what a load of `selector` into ES, SS, DS, FS or GS does.
    pub(super) fn data_segment(&mut self, name: Segment, selector: u16) -> Result<Load, Stop> {
        if !self.has_descriptors() {
            return Ok(self.without_descriptor(name, selector));
        }
        // CAST: two bits.
        let rpl = (selector & 3) as u8;
        let cpl = self.bus.cpl();
        let stack = name == Segment::Ss;
        if selector & !3 == 0 {
            return self.null_segment(name, selector);
        }
        let descriptor = self.descriptor(selector, 8)?;
        let code = descriptor.has(rights::CODE);
        let readable = !code || descriptor.has(rights::READ_WRITE);
        let allowed = if stack {
            !code && descriptor.has(rights::READ_WRITE) && rpl == cpl && descriptor.dpl() == cpl
        } else if code && descriptor.has(rights::CONFORMING) {
            readable
        } else {
            readable && rpl <= descriptor.dpl() && cpl <= descriptor.dpl()
        };
        if !descriptor.has(rights::S) || !allowed {
            return Err(selector_fault(GENERAL_PROTECTION, selector));
        }
        if !descriptor.has(rights::PRESENT) {
            let vector = if stack { STACK_FAULT } else { NOT_PRESENT };
            return Err(selector_fault(vector, selector));
        }
        Ok(descriptor.load(Name::Segment(name), selector, ACCESSED))
    }

    /// Returns what a load of a null selector does, which SS takes in 64-bit mode only.
    fn null_segment(&mut self, name: Segment, selector: u16) -> Result<Load, Stop> {
        let cpl = self.bus.cpl();
        let mut privilege = 0;
        if name == Segment::Ss {
            if self.bus.mode() != Mode::Long64 || cpl == 3 || selector & 3 != u16::from(cpl) {
                return Err(Stop::Fault(Fault::general_protection()));
            }
            // The privilege level is that of SS.
            privilege = u32::from(cpl) << rights::DPL_SHIFT;
        }
        let old = self.bus.segment(name);
        Ok(Load {
            name: Name::Segment(name),
            value: SegmentRegister {
                selector,
                base: if self.bus.mode() == Mode::Long64 && name != Segment::Ss {
                    // Intel's CPUs clear the base of a null segment.
                    0
                } else {
                    old.base
                },
                limit: old.limit,
                rights: rights::UNUSABLE | privilege,
            },
            mark: None,
        })
    }

    /// Returns what a far transfer to `target` in the segment `selector` does to CS, if it stays at
    /// the privilege level and goes through no gate and to no other task.
    pub(super) fn code_segment(
        &mut self,
        selector: u16,
        target: u64,
        transfer: Transfer,
    ) -> Result<Load, Stop> {
        let load = if self.has_descriptors() {
            self.code_descriptor(selector, transfer)?
        } else {
            self.without_descriptor(Segment::Cs, selector)
        };
        let value = &load.value;
        let inside = if self.bus.long_mode() && value.rights & rights::L != 0 {
            // The bits above a canonical address of 57 bits; the next fetch checks the rest.
            matches!(target >> 56, 0 | 0xff)
        } else {
            target <= u64::from(value.limit)
        };
        if inside {
            Ok(load)
        } else {
            Err(Stop::Fault(Fault::general_protection()))
        }
    }

    /// Checks the descriptor of a code segment.
    fn code_descriptor(&mut self, selector: u16, transfer: Transfer) -> Result<Load, Stop> {
        if selector & !3 == 0 {
            return Err(Stop::Fault(Fault::general_protection()));
        }
        let cpl = self.bus.cpl();
        // CAST: two bits.
        let rpl = (selector & 3) as u8;
        let descriptor = self.descriptor(selector, 8)?;
        if transfer == Transfer::Return {
            if rpl < cpl {
                return Err(selector_fault(GENERAL_PROTECTION, selector));
            }
            if rpl > cpl {
                // To another stack.
                return Err(Stop::Unsupported);
            }
        }
        if !descriptor.has(rights::S) {
            return Err(match (transfer, descriptor.kind()) {
                // TSS, task gate, call gate.
                (Transfer::Branch, 1 | 4 | 5 | 9 | 12) => Stop::Unsupported,
                _ => selector_fault(GENERAL_PROTECTION, selector),
            });
        }
        let allowed = if !descriptor.has(rights::CODE) {
            false
        } else if descriptor.has(rights::CONFORMING) {
            descriptor.dpl() <= cpl
        } else {
            rpl <= cpl && descriptor.dpl() == cpl
        };
        let both_widths = descriptor.has(rights::L | rights::DB);
        if !allowed || (both_widths && self.bus.long_mode()) {
            return Err(selector_fault(GENERAL_PROTECTION, selector));
        }
        if !descriptor.has(rights::PRESENT) {
            return Err(selector_fault(NOT_PRESENT, selector));
        }
        let selector = (selector & !3) | u16::from(cpl);
        Ok(descriptor.load(Name::Segment(Segment::Cs), selector, ACCESSED))
    }

    /// Returns what LLDT or LTR of `selector` does.
    pub(super) fn system_descriptor(
        &mut self,
        name: SystemSegment,
        selector: u16,
    ) -> Result<Load, Stop> {
        if selector & !3 == 0 {
            if name == SystemSegment::Task {
                return Err(Stop::Fault(Fault::general_protection()));
            }
            let old = self.bus.system_segment(name);
            return Ok(Load {
                name: Name::System(name),
                value: SegmentRegister {
                    selector,
                    rights: rights::UNUSABLE,
                    ..old
                },
                mark: None,
            });
        }
        let long = self.bus.long_mode();
        if selector & 4 != 0 {
            return Err(selector_fault(GENERAL_PROTECTION, selector));
        }
        let descriptor = self.descriptor(selector, if long { 16 } else { 8 })?;
        let (expected, mark) = match (name, descriptor.kind()) {
            (SystemSegment::Ldt, 2) => (true, 0),
            (SystemSegment::Task, 1) => (!long, BUSY),
            (SystemSegment::Task, 9) => (true, BUSY),
            _ => (false, 0),
        };
        if descriptor.has(rights::S) || !expected {
            return Err(selector_fault(GENERAL_PROTECTION, selector));
        }
        if !descriptor.has(rights::PRESENT) {
            return Err(selector_fault(NOT_PRESENT, selector));
        }
        let mut load = descriptor.load(Name::System(name), selector, mark);
        if long {
            let mut data = [0; 8];
            self.bus
                .read_table(descriptor.linear.wrapping_add(8), &mut data)?;
            let high = u64::from_le_bytes(data);
            // The type of the second half is 0.
            if high & (0x1f << 40) != 0 {
                return Err(selector_fault(GENERAL_PROTECTION, selector));
            }
            load.value.base |= high << 32;
        }
        Ok(load)
    }
}
