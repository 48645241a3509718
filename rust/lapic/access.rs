// SPDX-License-Identifier: GPL-2.0

//! The guest's accesses: memory-mapped in xAPIC mode, by MSR in x2APIC mode.

use super::{
    base::Mode,
    deliver::{
        Error,
        FIRST_VECTOR, //
    },
    message::Message,
    page::Page,
    priority::processor_priority,
    register::{
        Register,
        DFR_CLUSTER,
        ICR_BUSY,
        ICR_RESERVED_IN_X2APIC,
        LVT_MASKED,
        SVR_ENABLED, //
    },
    state::{
        Lapic,
        Owned, //
    },
    timer::{
        ArmTimer,
        TimerMode, //
    },
};

/// First MSR of the registers in x2APIC mode.
const FIRST_MSR: u32 = 0x800;
/// Number of registers, in memory and as MSRs.
const REGISTERS: u8 = 0x40;

/// The access raises #GP(0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GeneralProtection;

/// What an access asks of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Effect {
    /// Nothing.
    None,
    /// See before the next VM entry whether an interrupt can be delivered.
    Recheck,
    /// Send this message.
    Ipi(Message),
    /// An interrupt ended; recheck, too.
    Eoi {
        /// Its vector.
        vector: u8,
        /// It was level-triggered.
        level: bool,
        /// The guest suppressed that I/O APICs are told; else those that want to know this
        /// vector's end are.
        suppressed: bool,
    },
    /// Arm the host timer so.
    Timer(ArmTimer),
    /// What destinations name this APIC, or whether software enables it, changed: look-up tables
    /// of destinations are stale. Recheck, too.
    Identity,
}

/// The outcome of a read from memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    /// The value, in its low `size` bytes.
    pub(crate) value: u32,
    /// A reserved register may raise the error interrupt.
    pub(crate) effect: Effect,
}

/// The register is reserved or does not take that value.
struct Refused;

impl<P: Page> Lapic<P> {
    /// Returns the outcome of a read of `size` bytes at `offset` of the page.
    ///
    /// The caller has found the APIC in xAPIC mode. A read must not cross the register's 32 bits.
    pub(crate) fn read(&self, owned: &Owned, offset: u16, size: u8, now_ns: u64) -> Read {
        let byte = offset & 0xf;
        let inside = byte.saturating_add(u16::from(size)) <= 4;
        let Some(register) = register_at(offset).filter(|_| inside) else {
            return self.refuse_read();
        };
        match self.read_register(owned, register, now_ns) {
            Ok(value) => {
                let mask = match size {
                    1 => 0xff,
                    2 => 0xffff,
                    _ => u32::MAX,
                };
                let shift = u32::from(byte & 3).saturating_mul(8);
                Read {
                    value: value.wrapping_shr(shift) & mask,
                    effect: Effect::None,
                }
            }
            Err(Refused) => self.refuse_read(),
        }
    }

    /// Returns what a write of `size` bytes at `offset` of the page asks for.
    ///
    /// The caller has found the APIC in xAPIC mode. Only aligned writes of 32 bits count.
    pub(crate) fn write(
        &self,
        owned: &mut Owned,
        offset: u16,
        size: u8,
        value: u32,
        now_ns: u64,
    ) -> Effect {
        if size != 4 || offset & 0xf != 0 {
            return Effect::None;
        }
        let written = match register_at(offset) {
            Some(register) => self.write_register(owned, register, value, now_ns),
            None => Err(Refused),
        };
        written.unwrap_or_else(|Refused| self.refuse())
    }

    /// Returns the value of MSR `msr` (0x800 to 0x8ff).
    pub(crate) fn msr_read(
        &self,
        owned: &Owned,
        msr: u32,
        now_ns: u64,
    ) -> Result<u64, GeneralProtection> {
        let register = self.register_of_msr(msr)?;
        let low = self
            .read_register(owned, register, now_ns)
            .map_err(|Refused| GeneralProtection)?;
        let high = match register {
            Register::ICR => self.page().icr_upper(),
            _ => 0,
        };
        Ok(u64::from(high) << 32 | u64::from(low))
    }

    /// Returns what a write of `value` to MSR `msr` (0x800 to 0x8ff) asks for.
    pub(crate) fn msr_write(
        &self,
        owned: &mut Owned,
        msr: u32,
        value: u64,
        now_ns: u64,
    ) -> Result<Effect, GeneralProtection> {
        let register = self.register_of_msr(msr)?;
        // CAST: the halves of the value.
        let (low, high) = (value as u32, (value >> 32) as u32);
        if register == Register::ICR {
            if low & ICR_RESERVED_IN_X2APIC != 0 {
                return Err(GeneralProtection);
            }
            self.page().set_icr_upper(high);
            return Ok(self.command(low & !ICR_BUSY, high));
        }
        let reserved = register.reserved_in_x2apic(owned.config.options());
        if high != 0 || low & reserved != 0 {
            return Err(GeneralProtection);
        }
        self.write_register(owned, register, low, now_ns)
            .map_err(|Refused| GeneralProtection)
    }

    /// Returns what a write to the register at `offset` asks for that the processor has done already as
    /// far as memory goes.
    ///
    /// It has left the value in the register as the guest wrote it.
    pub(crate) fn written(&self, owned: &mut Owned, offset: u16, now_ns: u64) -> Effect {
        let Some(register) = register_at(offset) else {
            return self.refuse();
        };
        let value = self.page().get(register);
        match self.write_register(owned, register, value, now_ns) {
            // Whether software enables the APIC may have changed: what was there before is gone.
            Ok(Effect::None) if register == Register::SVR => Effect::Identity,
            Ok(effect) => {
                let ignored = register == Register::TIMER_INITIAL
                    && owned.timer.mode() == TimerMode::TscDeadline;
                if ignored || !register.access(self.mode(), owned.config.cmci).readable() {
                    self.page().set(register, 0);
                }
                effect
            }
            Err(Refused) => {
                self.page().set(register, 0);
                self.refuse()
            }
        }
    }

    /// Returns the TSC-deadline MSR; 0 outside TSC-deadline mode.
    pub(crate) fn tsc_deadline(&self, owned: &Owned) -> u64 {
        if self.is_enabled() {
            owned.timer.deadline()
        } else {
            0
        }
    }

    /// Returns what a write to the TSC-deadline MSR asks for.
    pub(crate) fn set_tsc_deadline(&self, owned: &mut Owned, deadline: u64) -> Effect {
        if !self.is_enabled() {
            return Effect::None;
        }
        match owned.timer.set_deadline(deadline) {
            Some(arm) => Effect::Timer(arm),
            None => Effect::None,
        }
    }

    /// Returns the processor priority.
    pub(crate) fn ppr(&self) -> u8 {
        processor_priority(self.tpr(), self.isr().highest())
    }

    /// Returns the register of MSR `msr`, which exists in x2APIC mode only.
    fn register_of_msr(&self, msr: u32) -> Result<Register, GeneralProtection> {
        let number = msr
            .checked_sub(FIRST_MSR)
            .and_then(|number| u8::try_from(number).ok())
            .filter(|&number| number < REGISTERS && self.mode() == Mode::X2apic)
            .ok_or(GeneralProtection)?;
        Ok(Register::from_number(number))
    }

    /// Returns the value of `register`.
    fn read_register(
        &self,
        owned: &Owned,
        register: Register,
        now_ns: u64,
    ) -> Result<u32, Refused> {
        let access = register.access(self.mode(), owned.config.cmci);
        if !access.readable() {
            return Err(Refused);
        }
        Ok(match register {
            Register::APR => 0,
            Register::PPR => u32::from(self.ppr()),
            Register::TIMER_CURRENT => self.timer_current(owned, now_ns),
            _ => self.page().get(register),
        })
    }

    /// Returns the timer's current count.
    pub(super) fn timer_current(&self, owned: &Owned, now_ns: u64) -> u32 {
        let initial = self.page().get(Register::TIMER_INITIAL);
        owned.timer.current(initial, now_ns)
    }

    /// Returns what a write of `value` to `register` asks for.
    fn write_register(
        &self,
        owned: &mut Owned,
        register: Register,
        value: u32,
        now_ns: u64,
    ) -> Result<Effect, Refused> {
        let access = register.access(self.mode(), owned.config.cmci);
        if !access.writable() {
            return Err(Refused);
        }
        let value = value & register.writable(owned.config.options());
        Ok(match register {
            Register::TPR => self.write_tpr(value),
            Register::EOI => self.end_of_interrupt(owned),
            Register::ID | Register::LDR => self.store_identity(register, value),
            Register::DFR => self.store_identity(register, value | DFR_CLUSTER),
            Register::SVR => self.write_svr(owned, value),
            Register::ESR => self.write_esr(),
            Register::ICR => self.command(value, self.page().get(Register::ICR2) >> 24),
            // CAST: the vector is the low byte.
            Register::SELF_IPI => self.send(Message::to_self(value as u8)),
            Register::LVT_TIMER => self.write_lvt_timer(owned, value),
            Register::TIMER_INITIAL => self.write_initial(owned, value, now_ns),
            Register::TIMER_DIVIDE => self.write_divide(owned, value, now_ns),
            Register::ICR2 => self.store(register, value),
            // What is left are the other entries of the local vector table.
            _ => self.store(register, self.masked_if_disabled(value)),
        })
    }

    /// Stores `value` in `register`.
    fn store(&self, register: Register, value: u32) -> Effect {
        self.page().set(register, value);
        Effect::None
    }

    /// Stores `value` in `register`, which is part of the APIC's identity.
    fn store_identity(&self, register: Register, value: u32) -> Effect {
        self.page().set(register, value);
        Effect::Identity
    }

    /// Writes the task priority.
    fn write_tpr(&self, value: u32) -> Effect {
        self.page().set(Register::TPR, value);
        match self.next_interrupt() {
            Some(_) => Effect::Recheck,
            None => Effect::None,
        }
    }

    /// Writes SVR; while software disables the APIC, all of the local vector table is masked.
    fn write_svr(&self, owned: &Owned, value: u32) -> Effect {
        let page = self.page();
        let old = page.get(Register::SVR);
        page.set(Register::SVR, value);
        if value & SVR_ENABLED == 0 {
            for entry in owned.config.lvt() {
                let masked = page.get(entry.register()) | LVT_MASKED;
                page.set(entry.register(), masked);
            }
        }
        if (old ^ value) & SVR_ENABLED != 0 {
            Effect::Identity
        } else {
            Effect::None
        }
    }

    /// Writes ESR: errors since the last time become readable.
    fn write_esr(&self) -> Effect {
        let errors = self.errors.swap(0);
        self.store(Register::ESR, errors)
    }

    /// Writes an interrupt command, which sends at once.
    fn command(&self, command: u32, destination: u32) -> Effect {
        self.page().set(Register::ICR, command);
        self.send(Message::from_command(command, destination))
    }

    /// Returns `message` to be sent, unless its vector is illegal.
    fn send(&self, message: Message) -> Effect {
        if message.mode.has_vector() && message.vector < FIRST_VECTOR {
            return self.error(Error::SendIllegalVector);
        }
        Effect::Ipi(message)
    }

    /// Writes the timer's entry of the local vector table, which chooses its mode.
    fn write_lvt_timer(&self, owned: &mut Owned, value: u32) -> Effect {
        let value = self.masked_if_disabled(value);
        self.page().set(Register::LVT_TIMER, value);
        let (old, new) = (owned.timer.mode(), TimerMode::from_lvt(value));
        if old == new {
            return Effect::None;
        }
        if owned.timer.set_mode(new) {
            self.page().set(Register::TIMER_INITIAL, 0);
        }
        Effect::Timer(owned.timer.armed())
    }

    /// Writes the initial count, which starts the timer.
    fn write_initial(&self, owned: &mut Owned, value: u32, now_ns: u64) -> Effect {
        if owned.timer.mode() == TimerMode::TscDeadline {
            return Effect::None;
        }
        self.page().set(Register::TIMER_INITIAL, value);
        Effect::Timer(owned.timer.start(value, now_ns))
    }

    /// Writes the divide configuration.
    fn write_divide(&self, owned: &mut Owned, value: u32, now_ns: u64) -> Effect {
        self.page().set(Register::TIMER_DIVIDE, value);
        let initial = self.page().get(Register::TIMER_INITIAL);
        match owned.timer.set_divide(value, initial, now_ns) {
            Some(arm) => Effect::Timer(arm),
            None => Effect::None,
        }
    }

    /// Returns an LVT entry as it is stored.
    fn masked_if_disabled(&self, value: u32) -> u32 {
        if self.page().get(Register::SVR) & SVR_ENABLED == 0 {
            value | LVT_MASKED
        } else {
            value
        }
    }

    /// Returns the outcome of a read from a reserved register.
    fn refuse_read(&self) -> Read {
        Read {
            value: 0,
            effect: self.refuse(),
        }
    }

    /// Returns the outcome of an access to a reserved register.
    fn refuse(&self) -> Effect {
        self.error(Error::IllegalRegister)
    }

    /// Returns what `error` asks for.
    fn error(&self, error: Error) -> Effect {
        if self.log(error) {
            Effect::Recheck
        } else {
            Effect::None
        }
    }
}

/// The registers that a processor with APICv reads in x2APIC mode as the guest does, as bits: those that
/// every guest has, but for the timer's current count.
pub(crate) const VIRTUALIZED_READS: u64 = {
    let mut registers = 0;
    let mut number = 0;
    while number < REGISTERS {
        let register = Register::from_number(number);
        let readable = register.access(Mode::X2apic, false).readable();
        if readable && number != Register::TIMER_CURRENT.number() {
            registers |= 1 << number;
        }
        number += 1;
    }
    registers
};

/// Returns the register at byte `offset` of the page, if it is one of the first 64.
fn register_at(offset: u16) -> Option<Register> {
    let number = u8::try_from(offset >> 4).ok()?;
    (number < REGISTERS).then_some(Register::from_number(number))
}
