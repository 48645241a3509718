// SPDX-License-Identifier: GPL-2.0

//! Events: how VM entry injects them and how VM exits report them.
//!
//! Three fields have the same layout: the VM-entry interruption information (what to inject), the
//! VM-exit interruption information (what exited) and the IDT-vectoring information (whose delivery an
//! exit cut short). [`EventInfo`] is that layout as a value.

use kernel::prelude::*;

use super::{
    field,
    vmcs::CurrentVmcs, //
};
use crate::x86::exception::{
    Exception,
    Vector, //
};

/// The kind of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EventKind {
    /// An external interrupt.
    ExternalInterrupt,
    /// A non-maskable interrupt.
    Nmi,
    /// A hardware exception.
    HardwareException,
    /// INT n.
    SoftwareInterrupt,
    /// INT1.
    PrivilegedSoftwareException,
    /// INT3 or INTO.
    SoftwareException,
}

impl EventKind {
    const fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::ExternalInterrupt,
            2 => Self::Nmi,
            3 => Self::HardwareException,
            4 => Self::SoftwareInterrupt,
            5 => Self::PrivilegedSoftwareException,
            6 => Self::SoftwareException,
            _ => return None,
        })
    }

    const fn code(self) -> u32 {
        match self {
            Self::ExternalInterrupt => 0,
            Self::Nmi => 2,
            Self::HardwareException => 3,
            Self::SoftwareInterrupt => 4,
            Self::PrivilegedSoftwareException => 5,
            Self::SoftwareException => 6,
        }
    }

    /// Returns whether an instruction raised the event, which delivery must skip.
    pub(crate) const fn has_instruction(self) -> bool {
        matches!(
            self,
            Self::SoftwareInterrupt | Self::PrivilegedSoftwareException | Self::SoftwareException
        )
    }
}

/// An event as VMX describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EventInfo {
    /// What kind of event.
    pub(crate) kind: EventKind,
    /// Its vector.
    pub(crate) vector: u8,
    /// The error code that delivery pushes.
    pub(crate) error_code: Option<u32>,
    /// The exit came from IRET that had unblocked NMIs.
    pub(crate) nmi_unblocked: bool,
}

/// Bit 11: there is an error code.
const ERROR_CODE: u32 = 1 << 11;
/// Bit 12: IRET unblocked NMIs before the exit.
const NMI_UNBLOCKED: u32 = 1 << 12;
/// Bit 31: the field holds an event.
const VALID: u32 = 1 << 31;

impl EventInfo {
    /// Returns the event of an interruption-information word, its error code still to be read.
    const fn decode(word: u32) -> Option<Self> {
        if word & VALID == 0 {
            return None;
        }
        let Some(kind) = EventKind::from_code(word >> 8 & 7) else {
            return None;
        };
        Some(Self {
            kind,
            // CAST: The vector is the low byte.
            vector: word as u8,
            error_code: if word & ERROR_CODE != 0 {
                Some(0)
            } else {
                None
            },
            nmi_unblocked: word & NMI_UNBLOCKED != 0,
        })
    }

    /// Returns the word that injects the event.
    const fn encode(&self) -> u32 {
        // CAST: Widening, which `From` cannot do in a const fn.
        let word = VALID | self.kind.code() << 8 | self.vector as u32;
        if self.error_code.is_some() {
            word | ERROR_CODE
        } else {
            word
        }
    }

    /// Returns the exception or NMI that caused the current exit.
    pub(crate) fn of_exit(vmcs: &CurrentVmcs<'_>) -> Self {
        let word = vmcs.read(field::VM_EXIT_INTERRUPTION_INFO);
        let mut event = Self::decode(word).unwrap_or(Self {
            kind: EventKind::HardwareException,
            vector: Vector::DF.number(),
            error_code: None,
            nmi_unblocked: false,
        });
        if event.error_code.is_some() {
            event.error_code = Some(vmcs.read(field::VM_EXIT_INTERRUPTION_ERROR_CODE));
        }
        event
    }

    /// Returns whether this is a machine check.
    pub(crate) fn is_machine_check(&self) -> bool {
        self.kind == EventKind::HardwareException && self.vector == Vector::MC.number()
    }

    /// Returns the event whose delivery the current exit cut short.
    pub(crate) fn being_delivered(vmcs: &CurrentVmcs<'_>) -> Option<Self> {
        let mut event = Self::decode(vmcs.read(field::IDT_VECTORING_INFO))?;
        if event.error_code.is_some() {
            event.error_code = Some(vmcs.read(field::IDT_VECTORING_ERROR_CODE));
        }
        Some(event)
    }

    /// Returns the injection of an exception, for a guest in protected mode or not.
    pub(crate) fn exception(exception: Exception, protected: bool) -> Self {
        let exception = exception.for_mode(protected);
        Self {
            kind: if exception.vector.is_software() {
                EventKind::SoftwareException
            } else {
                EventKind::HardwareException
            },
            vector: exception.vector.number(),
            error_code: exception.error_code,
            nmi_unblocked: false,
        }
    }

    /// Returns the injection of an external interrupt.
    pub(crate) const fn interrupt(vector: u8) -> Self {
        Self {
            kind: EventKind::ExternalInterrupt,
            vector,
            error_code: None,
            nmi_unblocked: false,
        }
    }

    /// Returns the injection of an NMI.
    pub(crate) const fn nmi() -> Self {
        Self {
            kind: EventKind::Nmi,
            vector: Vector::NMI.number(),
            error_code: None,
            nmi_unblocked: false,
        }
    }

    /// Has the next VM entry inject the event.
    ///
    /// `instruction_length` is that of the instruction which raised a software event.
    pub(crate) fn inject(&self, vmcs: &CurrentVmcs<'_>, instruction_length: u32) {
        if let Some(code) = self.error_code {
            vmcs.write(field::VM_ENTRY_EXCEPTION_ERROR_CODE, code);
        }
        if self.kind.has_instruction() {
            vmcs.write(field::VM_ENTRY_INSTRUCTION_LENGTH, instruction_length);
        }
        vmcs.write(field::VM_ENTRY_INTERRUPTION_INFO, self.encode());
    }
}

#[kunit_tests(kvm_rs_inject)]
mod tests {
    use super::*;

    #[test]
    fn encodes_as_the_manual_says() {
        let page_fault = EventInfo::exception(Exception::page_fault(2, 0x1000), true);
        assert_eq!(page_fault.encode(), 0x8000_0b0e);
        // No error code in real mode.
        let fault = EventInfo::exception(Exception::general_protection(), false);
        assert_eq!(fault.encode(), 0x8000_030d);
        assert_eq!(EventInfo::nmi().encode(), 0x8000_0202);
        assert_eq!(EventInfo::interrupt(0x20).encode(), 0x8000_0020);
    }

    #[test]
    fn decode_is_the_inverse() {
        assert!(EventInfo::decode(0x0000_0b0e).is_none());
        let event = EventInfo::decode(0x8000_0603);
        assert_eq!(
            event.map(|event| (event.kind, event.vector)),
            Some((EventKind::SoftwareException, 3))
        );
        assert_eq!(event.map(|event| event.encode()), Some(0x8000_0603));
    }
}
