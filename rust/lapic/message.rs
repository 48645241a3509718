// SPDX-License-Identifier: GPL-2.0

//! Interrupt messages: what an interrupt command or an MSI says.

/// The destination that is everyone, to an APIC in xAPIC mode.
pub(crate) const BROADCAST: u32 = 0xff;
/// The destination that is everyone, to an APIC in x2APIC mode.
pub(crate) const X2APIC_BROADCAST: u32 = 0xffff_ffff;

/// How a message acts on those who receive it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeliveryMode {
    /// To every receiver, with the vector given.
    Fixed,
    /// To one of the receivers, with the vector given.
    LowestPriority,
    /// System-management interrupt.
    Smi,
    /// Remote read; a paravirtual guest's way to wake another vCPU.
    RemoteRead,
    /// Non-maskable interrupt.
    Nmi,
    /// INIT.
    Init,
    /// Start-up, at the page that the vector names.
    Startup,
    /// As from an external interrupt controller that gives the vector.
    ExtInt,
}

impl DeliveryMode {
    /// Returns the mode encoded in bits 10:8 of an interrupt command, an LVT entry or MSI data.
    pub(crate) const fn from_bits_8(value: u32) -> Self {
        match value >> 8 & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            2 => Self::Smi,
            3 => Self::RemoteRead,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::Startup,
            _ => Self::ExtInt,
        }
    }

    /// Returns whether the vector names an interrupt, so that it must be at least 16.
    pub(crate) const fn has_vector(self) -> bool {
        matches!(self, Self::Fixed | Self::LowestPriority)
    }
}

/// Whether an interrupt is edge or level-triggered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// Edge.
    Edge,
    /// Level: its end is of interest to the I/O APIC.
    Level,
}

impl Trigger {
    /// Returns the trigger mode encoded in bit 15.
    pub(crate) const fn from_bit_15(value: u32) -> Self {
        if value & 1 << 15 != 0 {
            Self::Level
        } else {
            Self::Edge
        }
    }
}

/// Receivers named in relation to the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shorthand {
    /// None: the destination decides.
    None,
    /// The sender alone.
    Myself,
    /// All, with the sender.
    All,
    /// All but the sender.
    Others,
}

/// An interrupt message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// The vector; for [`DeliveryMode::Startup`] the number of the page to start at.
    pub(crate) vector: u8,
    /// What it does.
    pub(crate) mode: DeliveryMode,
    /// Asserted; a level-triggered message that is not has no effect.
    pub(crate) asserted: bool,
    /// Trigger mode.
    pub(crate) trigger: Trigger,
    /// Receivers in relation to the sender; if other than `None`, `destination` means nothing.
    pub(crate) shorthand: Shorthand,
    /// Destination: 8 bits from a sender in xAPIC mode, 32 from one in x2APIC mode.
    pub(crate) destination: u32,
    /// The destination is logical rather than an APIC ID.
    pub(crate) logical: bool,
    /// The sender lets one of the receivers be chosen, as with [`DeliveryMode::LowestPriority`].
    pub(crate) redirectable: bool,
}

impl Message {
    /// Returns what an interrupt command says, given the destination as the mode has it.
    pub(crate) const fn from_command(command: u32, destination: u32) -> Self {
        Self {
            // CAST: the vector is the low byte.
            vector: command as u8,
            mode: DeliveryMode::from_bits_8(command),
            asserted: command & 1 << 14 != 0,
            trigger: Trigger::from_bit_15(command),
            shorthand: match command >> 18 & 3 {
                0 => Shorthand::None,
                1 => Shorthand::Myself,
                2 => Shorthand::All,
                _ => Shorthand::Others,
            },
            destination,
            logical: command & 1 << 11 != 0,
            redirectable: false,
        }
    }

    /// Returns the message of a self-IPI.
    pub(crate) const fn to_self(vector: u8) -> Self {
        Self {
            vector,
            mode: DeliveryMode::Fixed,
            asserted: true,
            trigger: Trigger::Edge,
            shorthand: Shorthand::Myself,
            destination: 0,
            logical: false,
            redirectable: false,
        }
    }

    /// Returns what an MSI says.
    ///
    /// With `wide` the upper address holds bits 31:8 of the destination, as the x2APIC API of KVM
    /// has it.
    pub(crate) const fn from_msi(
        address_low: u32,
        address_high: u32,
        data: u32,
        wide: bool,
    ) -> Self {
        let upper = if wide { address_high & !0xff } else { 0 };
        Self {
            // CAST: the vector is the low byte.
            vector: data as u8,
            mode: DeliveryMode::from_bits_8(data),
            asserted: true,
            trigger: Trigger::from_bit_15(data),
            shorthand: Shorthand::None,
            destination: address_low >> 12 & 0xff | upper,
            logical: address_low & 1 << 2 != 0,
            redirectable: address_low & 1 << 3 != 0,
        }
    }

    /// Returns whether only one of the receivers gets the message.
    ///
    /// A physical broadcast goes to everyone all the same.
    pub(crate) const fn is_for_one(&self) -> bool {
        let broadcast = !self.logical
            && matches!(self.shorthand, Shorthand::None)
            && matches!(self.destination, BROADCAST | X2APIC_BROADCAST);
        (matches!(self.mode, DeliveryMode::LowestPriority) || self.redirectable) && !broadcast
    }
}
