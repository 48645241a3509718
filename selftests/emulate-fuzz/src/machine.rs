// SPDX-License-Identifier: GPL-2.0

//! A guest for tests: flat segments and one range of memory.

use super::{
    super::bus::{
        Bus,
        Fault,
        Mode,
        Segment,
        Stop, //
    },
    system::SystemState, //
};

/// The registers that instructions change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Registers {
    pub(super) gpr: [u64; 16],
    pub(super) rflags: u64,
    pub(super) rip: u64,
}

/// A guest with memory at one range of linear addresses, and page faults elsewhere.
#[derive(Clone)]
pub(super) struct Machine {
    pub(super) mode: Mode,
    /// What [`Bus::stack_pointer_size`] returns.
    pub(super) stack_pointer_size: u8,
    pub(super) registers: Registers,
    /// Bases of the segments, by their numbers.
    pub(super) bases: [u64; 6],
    /// The linear address of the first byte of `memory`.
    pub(super) base: u64,
    pub(super) memory: Vec<u8>,
    /// Where the code segment can be executed, beside where it has memory.
    pub(super) landing: Option<u64>,
    /// What was written to ports.
    pub(super) written: Vec<(u16, Vec<u8>)>,
    pub(super) system: SystemState,
}

impl Machine {
    /// Returns a machine with registers of 0.
    pub(super) fn new(mode: Mode, base: u64, memory: Vec<u8>) -> Self {
        Self {
            mode,
            stack_pointer_size: match mode {
                Mode::Long64 => 8,
                Mode::Protected32 => 4,
                _ => 2,
            },
            registers: Registers {
                gpr: [0; 16],
                rflags: 2,
                rip: 0,
            },
            bases: [0; 6],
            base,
            memory,
            landing: None,
            written: Vec::new(),
            system: SystemState::new(mode),
        }
    }

    /// Returns the bytes at `linear`, or the page fault that an access to them raises.
    pub(super) fn bytes(
        &mut self,
        linear: u64,
        size: usize,
        write: bool,
    ) -> Result<&mut [u8], Stop> {
        let start = usize::try_from(linear.wrapping_sub(self.base)).unwrap();
        let end = start.checked_add(size);
        end.and_then(|end| self.memory.get_mut(start..end))
            .ok_or(Stop::Fault(page_fault(linear, write)))
    }
}

/// Returns the page fault of an access to `linear`, where nothing is mapped.
pub(super) fn page_fault(linear: u64, write: bool) -> Fault {
    Fault {
        vector: 14,
        error_code: Some(u32::from(write) << 1),
        address: Some(linear),
    }
}

/// Returns what a segment violation raises.
pub(super) fn general_protection() -> Stop {
    Stop::Fault(Fault {
        vector: 13,
        error_code: Some(0),
        address: None,
    })
}

impl Bus for Machine {
    fn gpr(&self, index: u8) -> u64 {
        self.registers.gpr[usize::from(index)]
    }

    fn set_gpr(&mut self, index: u8, value: u64) {
        self.registers.gpr[usize::from(index)] = value;
    }

    fn rflags(&self) -> u64 {
        self.registers.rflags
    }

    fn set_rflags(&mut self, value: u64) {
        self.registers.rflags = value;
    }

    fn rip(&self) -> u64 {
        self.registers.rip
    }

    fn set_rip(&mut self, value: u64) {
        self.registers.rip = value;
    }

    fn mode(&self) -> Mode {
        self.mode
    }

    fn stack_pointer_size(&self) -> u8 {
        self.stack_pointer_size
    }

    fn linear(&self, segment: Segment, offset: u64, _size: u8, write: bool) -> Result<u64, Stop> {
        let linear = offset.wrapping_add(self.bases[segment as usize]);
        match (self.mode, segment) {
            // Tests on the CPU have a base of the host there, or no segment at all.
            (_, Segment::Fs) => Err(general_protection()),
            (Mode::Long64, _) => Ok(linear),
            (_, Segment::Gs) => Err(general_protection()),
            (_, Segment::Cs) if write => Err(general_protection()),
            _ => Ok(linear & 0xffff_ffff),
        }
    }

    fn check_target(&self, target: u64) -> Result<(), Stop> {
        if self.landing == Some(target) {
            Ok(())
        } else {
            Err(general_protection())
        }
    }

    fn check_write(&mut self, linear: u64, size: u8) -> Result<(), Stop> {
        self.bytes(linear, usize::from(size), true).map(|_| ())
    }

    fn read(&mut self, linear: u64, data: &mut [u8]) -> Result<(), Stop> {
        data.copy_from_slice(self.bytes(linear, data.len(), false)?);
        Ok(())
    }

    fn write(&mut self, linear: u64, data: &[u8]) -> Result<(), Stop> {
        self.bytes(linear, data.len(), true)?.copy_from_slice(data);
        Ok(())
    }

    fn compare_exchange(&mut self, linear: u64, old: &[u8], new: &[u8]) -> Result<bool, Stop> {
        let bytes = self.bytes(linear, old.len(), true)?;
        let same = *bytes == *old;
        if same {
            bytes.copy_from_slice(new);
        }
        Ok(same)
    }

    fn port_in(&mut self, port: u16, data: &mut [u8]) -> Result<(), Stop> {
        data.fill_with({
            let mut value = port as u8;
            move || {
                value = value.wrapping_mul(3).wrapping_add(1);
                value
            }
        });
        Ok(())
    }

    fn port_out(&mut self, port: u16, data: &[u8]) -> Result<(), Stop> {
        self.written.push((port, data.to_vec()));
        Ok(())
    }
}
