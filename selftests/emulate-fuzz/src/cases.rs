// SPDX-License-Identifier: GPL-2.0

//! Cases that random instructions do not reach or that the host cannot run.

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
        operand::{
            RAX,
            RBX,
            RCX,
            RDI,
            RDX,
            RSI,
            RSP, //
        },
        remainder::Remainder,
    },
    machine::{
        general_protection,
        page_fault,
        Machine, //
    },
};

/// Where the memory of machines here starts.
const BASE: u64 = 0x1000;

/// Returns a machine with memory from 1000 to 1fff that counts up.
fn machine(mode: Mode) -> Machine {
    Machine::new(mode, BASE, (0..4096).map(|at| at as u8).collect())
}

/// Executes the instruction `bytes` once.
fn step(machine: &mut Machine, bytes: &[u8]) -> Result<Outcome, Stop> {
    let instruction = decode(machine.mode, bytes).unwrap();
    assert_eq!(usize::from(instruction.length()), bytes.len());
    execute(&instruction, machine)
}

/// Returns the memory at `linear`.
fn memory(machine: &mut Machine, linear: u64, size: usize) -> Vec<u8> {
    machine.bytes(linear, size, false).unwrap().to_vec()
}

#[test]
fn ports() {
    let mut guest = machine(Mode::Long64);
    guest.set_gpr(RAX, 0x1122_3344_5566_7788);
    guest.set_gpr(RDX, 0xffff_0234);
    // out dx, al; out 0xf0, ax; rex.w out dx, eax
    for bytes in [&[0xee][..], &[0x66, 0xe7, 0xf0], &[0x48, 0xef]] {
        assert_eq!(step(&mut guest, bytes), Ok(Outcome::Done));
    }
    let expected = [
        (0x234, vec![0x88]),
        (0xf0, vec![0x88, 0x77]),
        (0x234, vec![0x88, 0x77, 0x66, 0x55]),
    ];
    assert_eq!(guest.written, expected);

    // in al, 1; in eax, 1
    assert_eq!(step(&mut guest, &[0xe4, 1]), Ok(Outcome::Done));
    assert_eq!(guest.gpr(RAX), 0x1122_3344_5566_7704);
    assert_eq!(step(&mut guest, &[0xe5, 1]), Ok(Outcome::Done));
    assert_eq!(guest.gpr(RAX), 0x7928_0d04);
}

#[test]
fn port_strings() {
    let mut guest = machine(Mode::Protected32);
    guest.set_gpr(RSI, BASE + 8);
    guest.set_gpr(RDI, BASE + 0xffe);
    guest.set_gpr(RDX, 1);
    guest.set_gpr(RCX, 2);
    // rep outsw
    assert_eq!(step(&mut guest, &[0xf3, 0x66, 0x6f]), Ok(Outcome::Again));
    assert_eq!((guest.rip(), guest.gpr(RCX)), (0, 1));
    assert_eq!(step(&mut guest, &[0xf3, 0x66, 0x6f]), Ok(Outcome::Done));
    assert_eq!((guest.rip(), guest.gpr(RCX)), (3, 0));
    assert_eq!(guest.written, [(1, vec![8, 9]), (1, vec![10, 11])]);

    // rep insb, which leaves the memory after two bytes.
    guest.set_gpr(RCX, 9);
    assert_eq!(step(&mut guest, &[0xf3, 0x6c]), Ok(Outcome::Again));
    assert_eq!(step(&mut guest, &[0xf3, 0x6c]), Ok(Outcome::Again));
    assert_eq!(memory(&mut guest, BASE + 0xffe, 2), [4, 4]);
    let before = guest.registers;
    let fault = Stop::Fault(page_fault(BASE + 0x1000, true));
    assert_eq!(step(&mut guest, &[0xf3, 0x6c]), Err(fault));
    assert_eq!(guest.registers, before);
    assert_eq!(guest.gpr(RCX), 7);
}

#[test]
fn strings_use_their_segments() {
    let mut guest = machine(Mode::Real);
    guest.bases[Segment::Ds as usize] = BASE;
    guest.bases[Segment::Es as usize] = BASE + 0x100;
    guest.bases[Segment::Cs as usize] = BASE + 0x200;
    guest.set_gpr(RSI, 0xabcd_0010);
    guest.set_gpr(RDI, 0xabcd_ffff);
    guest.set_gpr(RDI, 0xabcd_0020);
    // movsb; cs movsw
    assert_eq!(step(&mut guest, &[0xa4]), Ok(Outcome::Done));
    assert_eq!(step(&mut guest, &[0x2e, 0xa5]), Ok(Outcome::Done));
    assert_eq!(memory(&mut guest, BASE + 0x120, 3), [0x10, 0x11, 0x12]);
    assert_eq!(guest.gpr(RSI), 0xabcd_0013);
    assert_eq!(guest.gpr(RDI), 0xabcd_0023);

    // stosb, backwards across offset 0
    guest.set_gpr(RDI, 0xabcd_0000);
    guest.set_rflags(0x402);
    assert_eq!(step(&mut guest, &[0xaa]), Ok(Outcome::Done));
    assert_eq!(guest.gpr(RDI), 0xabcd_ffff);
}

#[test]
fn scan_ends_when_found() {
    let mut guest = machine(Mode::Long64);
    guest.set_gpr(RDI, BASE);
    guest.set_gpr(RCX, 100);
    guest.set_gpr(RAX, 3);
    // repne scasb
    for _ in 0..3 {
        assert_eq!(step(&mut guest, &[0xf2, 0xae]), Ok(Outcome::Again));
    }
    assert_eq!(step(&mut guest, &[0xf2, 0xae]), Ok(Outcome::Done));
    assert_eq!(guest.gpr(RDI), BASE + 4);
    assert_eq!(guest.gpr(RCX), 96);
}

#[test]
fn stack_of_16_bits_wraps() {
    let mut guest = machine(Mode::Real);
    guest.bases[Segment::Ss as usize] = (BASE + 0x800).wrapping_sub(0xfffe);
    guest.bases[Segment::Ds as usize] = BASE;
    guest.set_gpr(RSP, 0x7777_0000);
    guest.set_gpr(RBX, 6);
    // push word [bx]
    assert_eq!(step(&mut guest, &[0xff, 0x37]), Ok(Outcome::Done));
    assert_eq!(guest.gpr(RSP), 0x7777_fffe);
    assert_eq!(memory(&mut guest, BASE + 0x800, 2), [6, 7]);
    // pop word [bx+1]
    assert_eq!(step(&mut guest, &[0x8f, 0x47, 1]), Ok(Outcome::Done));
    assert_eq!(guest.gpr(RSP), 0x7777_0000);
    assert_eq!(memory(&mut guest, BASE + 6, 4), [6, 6, 7, 9]);
}

#[test]
fn calls_check_their_target() {
    let mut guest = machine(Mode::Protected16);
    guest.set_rip(0x1_fffe);
    guest.set_gpr(RSP, BASE + 0x100);
    guest.set_gpr(RBX, BASE + 0x40);
    let before = guest.registers;
    // call [bx]
    assert_eq!(step(&mut guest, &[0xff, 0x17]), Err(general_protection()));
    assert_eq!(guest.registers, before);
    guest.landing = Some(0x4140);
    assert_eq!(step(&mut guest, &[0xff, 0x17]), Ok(Outcome::Done));
    assert_eq!(guest.rip(), 0x4140);
    assert_eq!(memory(&mut guest, BASE + 0xfe, 2), [0, 0]);
    assert_eq!(guest.gpr(RSP), BASE + 0xfe);
}

#[test]
fn rip_has_32_bits_outside_of_64_bit_mode() {
    let cases = [
        (Mode::Long64, 0xffff_ffff, 0x1_0000_0001),
        (Mode::Protected32, 0xffff_ffff, 1),
        (Mode::Protected16, 0xffff, 0x1_0001),
    ];
    for (mode, rip, expected) in cases {
        let mut guest = machine(mode);
        guest.set_rip(rip);
        // mov al, cl
        assert_eq!(step(&mut guest, &[0x88, 0xc8]), Ok(Outcome::Done));
        assert_eq!(guest.rip(), expected);
    }
}

#[test]
fn pairs_of_16_bytes_are_aligned() {
    let mut guest = machine(Mode::Long64);
    guest.set_gpr(RBX, BASE + 8);
    // cmpxchg16b [rbx]
    let bytes = [0x48, 0x0f, 0xc7, 0x0b];
    assert_eq!(step(&mut guest, &bytes), Err(general_protection()));
    guest.set_gpr(RBX, BASE + 16);
    assert_eq!(step(&mut guest, &bytes), Ok(Outcome::Done));
    assert_eq!(guest.gpr(RDX), 0x1f1e_1d1c_1b1a_1918);
}

#[test]
fn read_only_operands_stay_unread() {
    let mut guest = machine(Mode::Long64);
    // add [rbx], al; the write is refused first
    let fault = Stop::Fault(page_fault(0x8000, true));
    guest.set_gpr(RBX, 0x8000);
    assert_eq!(step(&mut guest, &[0x00, 0x03]), Err(fault));
    // cmp [rbx], al only reads
    let fault = Stop::Fault(page_fault(0x8000, false));
    assert_eq!(step(&mut guest, &[0x38, 0x03]), Err(fault));
}

#[test]
fn bit_numbers_are_signed() {
    let at = BASE + 0x800;
    // The number in RCX; the operand size; the byte that changes, and which bit of it.
    let cases: [(u64, &[u8], u64, u8); 7] = [
        (9, &[0x0f, 0xab, 0x0b], at + 1, 1),
        (64, &[0x48, 0x0f, 0xab, 0x0b], at + 8, 0),
        (u64::MAX, &[0x48, 0x0f, 0xab, 0x0b], at - 1, 7),
        (0xffff_ffdf, &[0x0f, 0xab, 0x0b], at - 5, 7),
        (0xf_ffe1, &[0x66, 0x0f, 0xab, 0x0b], at - 4, 1),
        (0x1_4000, &[0x66, 0x0f, 0xab, 0x0b], at + 0x800, 0),
        (0x3ff7, &[0x66, 0x0f, 0xab, 0x0b], at + 0x7fe, 7),
    ];
    for (number, bytes, changed, bit) in cases {
        let mut guest = machine(Mode::Long64);
        // One page more, for the largest distance.
        guest.memory = vec![0; 0x2000];
        guest.set_gpr(RBX, at);
        guest.set_gpr(RCX, number);
        // bts [rbx], rcx, ecx or cx
        assert_eq!(step(&mut guest, bytes), Ok(Outcome::Done));
        let mut expected = vec![0; 0x2000];
        expected[usize::try_from(changed - BASE).unwrap()] = 1 << bit;
        assert!(guest.memory == expected, "{number:x} {bytes:x?}");
    }
}

/// What is left of a load or store after its access is what execution does after it.
#[test]
fn remainders_are_what_execution_does() {
    let opcodes: [&[u8]; 16] = [
        &[0x8a],
        &[0x8b],
        &[0x0f, 0xb6],
        &[0x0f, 0xb7],
        &[0x0f, 0xbe],
        &[0x0f, 0xbf],
        &[0x63],
        &[0x0f, 0x38, 0xf0],
        &[0x88],
        &[0x89],
        &[0x0f, 0x38, 0xf1],
        &[0x0f, 0xc3],
        // These are not so plain.
        &[0x03],
        &[0x86],
        &[0x0f, 0xaf],
        &[0xff],
    ];
    let prefixes: [&[u8]; 7] = [
        &[],
        &[0x66],
        &[0x40],
        &[0x44],
        &[0x48],
        &[0x4c],
        &[0x66, 0x4c],
    ];
    let mut remainders = 0;
    for (index, opcode) in opcodes.iter().enumerate() {
        for prefix in prefixes {
            for register in 0..8 {
                let mut bytes = [prefix, opcode].concat();
                // [rbx]
                bytes.push(register << 3 | 3);
                let mut guest = machine(Mode::Long64);
                for gpr in 0..16 {
                    guest.set_gpr(gpr, u64::from(gpr) << 56 | 0x8899_aabb_ccdd_eeff);
                }
                guest.set_gpr(RBX, BASE + 0x7d);
                let Ok(instruction) = decode(guest.mode, &bytes) else {
                    continue;
                };
                let mut expected = guest.registers;
                let mut data = [0; 8];
                data.copy_from_slice(&memory(&mut guest, BASE + 0x7d, 8));
                let found: Vec<_> = [1, 2, 4, 8]
                    .into_iter()
                    .filter_map(|size| instruction.remainder(size))
                    .collect();
                let [remainder] = found[..] else {
                    assert!(found.is_empty() && index >= 12, "{bytes:x?}");
                    continue;
                };
                remainders += 1;
                if let Remainder::Load(load) = remainder {
                    let gpr = &mut expected.gpr[usize::from(load.register())];
                    *gpr = load.apply(*gpr, data);
                }
                assert_eq!(index < 8, remainder != Remainder::Nothing, "{bytes:x?}");
                expected.rip += bytes.len() as u64;
                assert_eq!(step(&mut guest, &bytes), Ok(Outcome::Done), "{bytes:x?}");
                assert_eq!(guest.registers, expected, "{bytes:x?}");
            }
        }
    }
    assert!(remainders > 500, "{remainders}");
}
