// SPDX-License-Identifier: GPL-2.0

//! What an instruction leaves behind that stops in its middle.

use std::collections::VecDeque;

use super::{
    super::{
        bus::{
            Bus,
            Mode,
            Segment,
            Stop, //
        },
        decode::decode,
        execute::{
            execute,
            Outcome, //
        },
        instruction::{
            Instruction,
            Operation, //
        },
        system::{
            DescriptorTable,
            SegmentRegister,
            Shadow,
            System,
            SystemSegment,
            Table, //
        },
    },
    generate,
    machine::{
        general_protection,
        Machine,
        Registers, //
    },
    random::Random,
    system::system_of_machine, //
};

/// Bytes of memory of the machines here.
const MEMORY: usize = 1 << 12;

/// An access, with what it returned.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Access {
    Read(u64, Vec<u8>),
    Write(u64, Vec<u8>),
    Exchange(u64, Vec<u8>, Vec<u8>, bool),
    In(u16, Vec<u8>),
    Out(u16, Vec<u8>),
}

/// What happens to an access that is new.
#[derive(Clone, Copy, Debug)]
enum New {
    /// It is done outside, and the instruction stops until it is run again.
    Pending,
    /// It is done, unless this is 0; the number counts down.
    FaultAfter(usize),
    /// It is done; the first exchange fails.
    LostRace,
}

/// A machine whose accesses do not all succeed at once.
struct Outside {
    machine: Machine,
    new: New,
    /// The accesses of the instruction that are complete.
    log: Vec<Access>,
    /// Those of them that were not asked for since the instruction was run again.
    replay: VecDeque<Access>,
}

impl Outside {
    /// Answers an access from the log, if it is there; else lets `access` happen.
    ///
    /// `matches` returns whether an access in the log is the one asked for.
    fn answer(
        &mut self,
        matches: impl FnOnce(&Access) -> bool,
        access: impl FnOnce(&mut Machine) -> Result<Access, Stop>,
    ) -> Result<Access, Stop> {
        if let Some(logged) = self.replay.pop_front() {
            assert!(matches(&logged), "not the access of the first time");
            return Ok(logged);
        }
        match &mut self.new {
            New::FaultAfter(0) => return Err(general_protection()),
            New::FaultAfter(count) => *count -= 1,
            New::Pending | New::LostRace => {}
        }
        let done = access(&mut self.machine)?;
        self.log.push(done.clone());
        match self.new {
            New::Pending => Err(Stop::Pending),
            _ => Ok(done),
        }
    }

    /// Executes `instruction` until it is complete or faults. Checks that what stops changes
    /// nothing.
    fn run(&mut self, instruction: &Instruction) -> Result<(), Stop> {
        loop {
            let before = self.machine.registers;
            self.replay = self.log.iter().cloned().collect();
            let result = execute(instruction, self);
            assert!(self.replay.is_empty(), "fewer accesses than the first time");
            match result {
                Ok(Outcome::Done) => return Ok(()),
                Ok(Outcome::Again) => {
                    assert_eq!(self.machine.registers.rip, before.rip);
                    self.log.clear();
                }
                Err(stop) => {
                    assert_eq!(self.machine.registers, before, "{instruction:?}");
                    if stop != Stop::Pending {
                        return Err(stop);
                    }
                }
            }
        }
    }
}

system_of_machine!(Outside);

impl Bus for Outside {
    fn gpr(&self, index: u8) -> u64 {
        self.machine.gpr(index)
    }

    fn set_gpr(&mut self, index: u8, value: u64) {
        self.machine.set_gpr(index, value);
    }

    fn rflags(&self) -> u64 {
        self.machine.rflags()
    }

    fn set_rflags(&mut self, value: u64) {
        self.machine.set_rflags(value);
    }

    fn rip(&self) -> u64 {
        self.machine.rip()
    }

    fn set_rip(&mut self, value: u64) {
        self.machine.set_rip(value);
    }

    fn mode(&self) -> Mode {
        self.machine.mode()
    }

    fn linear(&self, segment: Segment, offset: u64, size: u8, write: bool) -> Result<u64, Stop> {
        // All addresses are good: low bits find memory.
        let _ = (segment, size, write);
        Ok(offset % (MEMORY as u64 / 2))
    }

    fn check_target(&self, _target: u64) -> Result<(), Stop> {
        Ok(())
    }

    fn check_write(&mut self, linear: u64, size: u8) -> Result<(), Stop> {
        self.machine.check_write(linear, size)
    }

    fn read(&mut self, linear: u64, data: &mut [u8]) -> Result<(), Stop> {
        let size = data.len();
        let access = self.answer(
            |logged| matches!(logged, Access::Read(at, old) if *at == linear && old.len() == size),
            |machine| {
                let mut data = vec![0; size];
                machine.read(linear, &mut data)?;
                Ok(Access::Read(linear, data))
            },
        )?;
        if let Access::Read(_, old) = access {
            data.copy_from_slice(&old);
        }
        Ok(())
    }

    fn write(&mut self, linear: u64, data: &[u8]) -> Result<(), Stop> {
        let access = Access::Write(linear, data.to_vec());
        self.answer(
            |logged| *logged == access,
            |machine| machine.write(linear, data).map(|()| access.clone()),
        )?;
        Ok(())
    }

    fn compare_exchange(&mut self, linear: u64, old: &[u8], new: &[u8]) -> Result<bool, Stop> {
        if let New::LostRace = self.new {
            self.new = New::FaultAfter(usize::MAX);
            return Ok(false);
        }
        let same = |logged: &Access| match logged {
            Access::Exchange(at, from, to, _) => *at == linear && from == old && to == new,
            _ => false,
        };
        let access = self.answer(same, |machine| {
            let done = machine.compare_exchange(linear, old, new)?;
            Ok(Access::Exchange(linear, old.to_vec(), new.to_vec(), done))
        })?;
        Ok(matches!(access, Access::Exchange(.., true)))
    }

    fn port_in(&mut self, port: u16, data: &mut [u8]) -> Result<(), Stop> {
        let size = data.len();
        let access = self.answer(
            |logged| matches!(logged, Access::In(at, old) if *at == port && old.len() == size),
            |machine| {
                let mut data = vec![0; size];
                machine.port_in(port, &mut data)?;
                Ok(Access::In(port, data))
            },
        )?;
        if let Access::In(_, old) = access {
            data.copy_from_slice(&old);
        }
        Ok(())
    }

    fn port_out(&mut self, port: u16, data: &[u8]) -> Result<(), Stop> {
        let access = Access::Out(port, data.to_vec());
        self.answer(
            |logged| *logged == access,
            |machine| machine.port_out(port, data).map(|()| access.clone()),
        )?;
        Ok(())
    }
}

/// Calls `test` with random instructions, each with a machine to run it on.
fn for_random(test: impl Fn(&mut Random, &Instruction, Machine)) {
    let seed = super::seed();
    let mut random = Random::new(seed);
    let memory: Vec<u8> = (0..MEMORY).map(|_| random.byte()).collect();
    for _ in 0..super::count() / 30 {
        let mode = random.choose(&[Mode::Real, Mode::Protected32, Mode::Long64]);
        let mut bytes = generate::instruction(&mut random);
        while bytes.len() < 15 {
            bytes.push(random.byte());
        }
        let Ok(instruction) = decode(mode, &bytes) else {
            continue;
        };
        let mut machine = Machine::new(mode, 0, memory.clone());
        machine.registers = Registers {
            gpr: std::array::from_fn(|_| random.edge()),
            rflags: random.bits() & 0xcd7 | 2,
            rip: random.bits() & 0xffff,
        };
        // As a count of elements.
        machine.registers.gpr[1] &= 7;
        test(&mut random, &instruction, machine);
    }
}

/// Runs `instruction` on `machine` and returns what comes of it.
fn run(instruction: &Instruction, machine: Machine, new: New) -> (Outside, Result<(), Stop>) {
    let mut outside = Outside {
        machine,
        new,
        log: Vec::new(),
        replay: VecDeque::new(),
    };
    let result = outside.run(instruction);
    (outside, result)
}

/// What counts as completed without an obstacle.
const FREE: New = New::FaultAfter(usize::MAX);

/// Checks that two runs have had the same effect.
fn assert_same(instruction: &Instruction, left: &Machine, right: &Machine) {
    assert_eq!(left.registers, right.registers, "{instruction:?}");
    assert_eq!(left.written, right.written, "{instruction:?}");
    assert_eq!(left.system, right.system, "{instruction:?}");
    assert!(left.memory == right.memory, "{instruction:?}");
}

#[test]
fn pending_accesses_change_nothing() {
    for_random(|_, instruction, machine| {
        let (free, result) = run(instruction, machine.clone(), FREE);
        let (pending, replayed) = run(instruction, machine, New::Pending);
        assert_eq!(result, replayed);
        assert_same(instruction, &free.machine, &pending.machine);
    });
}

#[test]
fn faults_change_nothing() {
    for_random(|random, instruction, machine| {
        // These write to the stack more than once, and may read where they wrote: then it matters
        // that they check all of it before, which a fault at a random access does not heed.
        if let Operation::Enter
        | Operation::FarCall
        | Operation::Interrupt
        | Operation::Breakpoint
        | Operation::Overflow = instruction.operation
        {
            return;
        }
        let (free, result) = run(instruction, machine.clone(), FREE);
        if result.is_err() {
            return;
        }
        let new = New::FaultAfter(random.below(6));
        let (mut faulting, fault) = run(instruction, machine, new);
        if fault.is_err() {
            // The handler returns. What was written is written again.
            faulting.new = FREE;
            faulting.log.clear();
            assert_eq!(faulting.run(instruction), Ok(()));
        }
        assert_same(instruction, &free.machine, &faulting.machine);
    });
}

#[test]
fn lost_races_start_over() {
    for_random(|_, instruction, machine| {
        let (free, result) = run(instruction, machine.clone(), FREE);
        let (raced, again) = run(instruction, machine, New::LostRace);
        assert_eq!(result, again);
        assert_same(instruction, &free.machine, &raced.machine);
    });
}
