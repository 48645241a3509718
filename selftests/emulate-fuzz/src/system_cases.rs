// SPDX-License-Identifier: GPL-2.0

//! System instructions, which user space cannot run: by the manual.

use super::{
    super::{
        bus::{
            Bus,
            Fault,
            InterruptKind,
            Mode,
            Segment,
            Stop, //
        },
        decode::decode,
        execute::{
            execute,
            Outcome, //
        },
        operand::{
            RAX,
            RSP, //
        },
        system::{
            DescriptorTable,
            Shadow,
            System,
            Table, //
        },
    },
    machine::Machine, //
};

/// Flat code of 32 bits, at 8.
const CODE32: u64 = 0x00cf_9a00_0000_ffff;
/// Flat data, at 16.
const DATA32: u64 = 0x00cf_9200_0000_ffff;
/// Data that is not present, at 24.
const ABSENT: u64 = 0x00cf_1200_0000_ffff;
/// Code of 64 bits, at 32.
const CODE64: u64 = 0x00af_9b00_0000_ffff;

/// Returns a machine with 4 KiB at 0, of which the first five descriptors are a global table.
fn machine(mode: Mode) -> Machine {
    let mut memory = vec![0; 4096];
    for (index, descriptor) in [0, CODE32, DATA32, ABSENT, CODE64].into_iter().enumerate() {
        memory[index * 8..][..8].copy_from_slice(&u64::to_le_bytes(descriptor));
    }
    let mut machine = Machine::new(mode, 0, memory);
    machine.set_table(Table::Global, DescriptorTable { base: 0, limit: 39 });
    machine.set_gpr(RSP, 0x800);
    machine
}

/// Executes the instruction `bytes` once.
fn step(machine: &mut Machine, bytes: &[u8]) -> Result<Outcome, Stop> {
    let instruction = decode(machine.mode, bytes).unwrap();
    assert_eq!(usize::from(instruction.length()), bytes.len());
    execute(&instruction, machine)
}

/// Returns the fault `vector` with an error code.
fn fault(vector: u8, error_code: u32) -> Result<Outcome, Stop> {
    Err(Stop::Fault(Fault::with_error_code(vector, error_code)))
}

#[test]
fn from_real_mode_to_protected_mode() {
    let mut guest = machine(Mode::Real);
    // lgdt [0x100], with a base of 24 bits
    guest.memory[0x100..0x106].copy_from_slice(&[0x27, 0, 0, 0, 0, 0xff]);
    assert_eq!(
        step(&mut guest, &[0x0f, 0x01, 0x16, 0, 1]),
        Ok(Outcome::Done)
    );
    let expected = DescriptorTable {
        base: 0,
        limit: 0x27,
    };
    assert_eq!(guest.table(Table::Global), expected);
    // mov eax, 1; mov cr0, eax
    guest.set_gpr(RAX, 0xffff_ffff_0000_0001);
    assert_eq!(step(&mut guest, &[0x0f, 0x22, 0xc0]), Ok(Outcome::Done));
    assert_eq!(guest.system.control[0], 1);

    // jmp 8:0x12345678, in code of 16 bits
    guest.mode = Mode::Protected16;
    let jump = [0x66, 0xea, 0x78, 0x56, 0x34, 0x12, 8, 0];
    assert_eq!(step(&mut guest, &jump), Ok(Outcome::Done));
    assert_eq!(guest.rip(), 0x1234_5678);
    let code = System::segment(&mut guest, Segment::Cs);
    assert_eq!((code.selector, code.base, code.limit), (8, 0, u32::MAX));
    // Accessed now, in the table, too.
    assert_eq!(code.rights, 0xc09b);
    assert_eq!(guest.memory[13], 0x9b);
}

#[test]
fn segments_are_checked() {
    let mut guest = machine(Mode::Protected32);
    // The selector; what mov ds, ax and mov ss, ax do.
    let cases = [
        (0x10, Ok(Outcome::Done), Ok(Outcome::Done)),
        (0x00, Ok(Outcome::Done), fault(13, 0)),
        (0x08, Ok(Outcome::Done), fault(13, 8)),
        (0x18, fault(11, 0x18), fault(12, 0x18)),
        (0x13, fault(13, 0x10), fault(13, 0x10)),
        (0x28, fault(13, 0x28), fault(13, 0x28)),
    ];
    for (selector, data, stack) in cases {
        guest.set_gpr(RAX, selector);
        assert_eq!(step(&mut guest, &[0x8e, 0xd8]), data, "ds {selector:x}");
        guest.system.shadow = None;
        assert_eq!(step(&mut guest, &[0x8e, 0xd0]), stack, "ss {selector:x}");
        let shadow = stack.is_ok().then_some(Shadow::MovSs);
        assert_eq!(guest.system.shadow, shadow);
    }
    // jmp to what is no code, null, and beyond the table
    for (selector, error_code) in [(0x10, 0x10), (0, 0), (0x28, 0x28)] {
        let jump = [0xea, 0, 0, 0, 0, selector, 0];
        assert_eq!(step(&mut guest, &jump), fault(13, error_code));
    }
}

#[test]
fn interrupts_of_real_mode_return() {
    let mut guest = machine(Mode::Real);
    guest.set_table(
        Table::Interrupt,
        DescriptorTable {
            base: 0x200,
            limit: 0x3ff,
        },
    );
    guest.memory[0x200 + 0x10 * 4..][..4].copy_from_slice(&[0x34, 0x12, 0x00, 0xf0]);
    guest.set_rflags(0x302);
    guest.set_rip(0x50);
    // int 0x10
    assert_eq!(step(&mut guest, &[0xcd, 0x10]), Ok(Outcome::Done));
    let code = System::segment(&mut guest, Segment::Cs);
    assert_eq!(
        (guest.rip(), code.selector, code.base),
        (0x1234, 0xf000, 0xf_0000)
    );
    assert_eq!((guest.rflags(), guest.gpr(RSP)), (2, 0x7fa));
    assert_eq!(guest.memory[0x7fa..0x800], [0x52, 0, 0, 0, 2, 3]);
    // iret
    assert_eq!(step(&mut guest, &[0xcf]), Ok(Outcome::Done));
    assert_eq!((guest.rip(), guest.rflags()), (0x52, 0x302));
    assert!(guest.system.nmis_unblocked);
    // A table that is too short.
    guest.set_table(Table::Interrupt, DescriptorTable { base: 0, limit: 2 });
    assert_eq!(step(&mut guest, &[0xcd, 0]), fault(13, 0));

    // In protected mode, the CPU does it.
    let mut guest = machine(Mode::Protected32);
    let stop = Stop::Interrupt {
        vector: 0x80,
        kind: InterruptKind::Software,
    };
    assert_eq!(step(&mut guest, &[0xcd, 0x80]), Err(stop));
}

#[test]
fn privilege_is_checked() {
    // hlt, clts, mov cr0 eax, lgdt, wrmsr, invlpg, cli
    let instructions: [&[u8]; 7] = [
        &[0xf4],
        &[0x0f, 0x06],
        &[0x0f, 0x22, 0xc0],
        &[0x0f, 0x01, 0x10],
        &[0x0f, 0x30],
        &[0x0f, 0x01, 0x38],
        &[0xfa],
    ];
    for bytes in instructions {
        let mut guest = machine(Mode::Protected32);
        guest.system.cpl = 3;
        let before = guest.system.clone();
        assert_eq!(step(&mut guest, bytes), fault(13, 0), "{bytes:x?}");
        assert_eq!(guest.system, before);
        guest.system.cpl = 0;
        assert_eq!(step(&mut guest, bytes), Ok(Outcome::Done), "{bytes:x?}");
    }
}

#[test]
fn sti_keeps_interrupts_away_once() {
    let mut guest = machine(Mode::Real);
    assert_eq!(step(&mut guest, &[0xfb]), Ok(Outcome::Done));
    assert_eq!(guest.system.shadow, Some(Shadow::Sti));
    guest.system.shadow = None;
    assert_eq!(step(&mut guest, &[0xfb]), Ok(Outcome::Done));
    assert_eq!(guest.system.shadow, None);
}
