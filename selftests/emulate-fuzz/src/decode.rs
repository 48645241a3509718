// SPDX-License-Identifier: GPL-2.0

//! The decoder against that of `iced-x86`.

use iced_x86::{
    EncodingKind,
    Mnemonic, //
};

use super::{
    super::{
        bus::Mode,
        decode::{
            decode,
            DecodeError, //
        },
        instruction::Instruction,
    },
    generate::Generator,
    random::Random,
    reference::{
        self,
        Registers, //
    },
};

/// All modes; those of 32 and 64 bits as often as the three of 16.
const MODES: [Mode; 9] = [
    Mode::Real,
    Mode::Virtual8086,
    Mode::Protected16,
    Mode::Protected32,
    Mode::Protected32,
    Mode::Protected32,
    Mode::Long64,
    Mode::Long64,
    Mode::Long64,
];

/// Compares what the two decoders make of `bytes`, and returns what is wrong.
fn check(random: &mut Random, mode: Mode, bytes: &[u8]) -> Result<Option<Instruction>, String> {
    let rip = match mode {
        Mode::Long64 => random.bits(),
        Mode::Protected32 => random.bits() >> 32,
        _ => random.bits() >> 48,
    };
    let options = iced_x86::DecoderOptions::NONE;
    let bitness = reference::bitness(mode);
    let mut decoder = iced_x86::Decoder::with_ip(bitness, bytes, rip, options);
    let expected = decoder.decode();
    let ours = decode(mode, bytes);
    let valid = !expected.is_invalid();
    let real = matches!(mode, Mode::Real | Mode::Virtual8086);
    match ours {
        Ok(instruction) if valid => {
            for _ in 0..2 {
                let registers = Registers {
                    gpr: std::array::from_fn(|_| random.edge()),
                    next_rip: rip.wrapping_add(u64::from(instruction.length())),
                };
                let difference = reference::difference(mode, &instruction, &expected, &registers);
                if let Some(text) = difference {
                    return Err(format!("{text}, in {:?}, not {ours:x?}", expected.code()));
                }
            }
            Ok(Some(instruction))
        }
        Ok(_) => Err(format!("{:?}, not {ours:x?}", decoder.last_error())),
        Err(DecodeError::Unsupported) if valid && reference::operation(&expected).is_some() => {
            Err(format!("{:?} is claimed to be supported", expected.code()))
        }
        Err(DecodeError::Unsupported) => Ok(None),
        // The reference does not know these modes, which have no VEX.
        Err(DecodeError::Invalid) if expected.code().encoding() != EncodingKind::Legacy && real => {
            Ok(None)
        }
        // A valid name for what is invalid.
        Err(DecodeError::Invalid) if expected.mnemonic() == Mnemonic::Ud2 => Ok(None),
        Err(error) if valid => Err(format!("{:?}, not {error:?}", expected.code())),
        Err(DecodeError::TooLong) if bytes.len() < 15 => Err("not too long".into()),
        Err(DecodeError::Truncated) if bytes.len() >= 15 => Err("not truncated".into()),
        Err(_) => Ok(None),
    }
}

#[test]
fn agrees_with_iced() {
    let (seed, count) = (super::seed(), super::count_to_decode());
    let mut random = Random::new(seed);
    let mut generator = Generator::new();
    let mut decoded = 0;
    for _ in 0..count {
        let mode = random.choose(&MODES);
        let bytes = generator.next(&mut random);
        match check(&mut random, mode, &bytes) {
            Ok(None) => {}
            Ok(Some(instruction)) => {
                decoded += 1;
                generator.keep(&mut random, &bytes[..usize::from(instruction.length())]);
            }
            Err(text) => panic!("{mode:?} {bytes:02x?}: {text} (seed {seed})"),
        }
    }
    println!("{decoded} of {count} were instructions to emulate");
    assert!(decoded > count / 4);
}

#[test]
fn needs_every_byte() {
    let mut random = Random::new(super::seed());
    let mut generator = Generator::new();
    for _ in 0..super::count() / 10 {
        let mode = random.choose(&MODES);
        let bytes = generator.next(&mut random);
        let Ok(instruction) = decode(mode, &bytes) else {
            continue;
        };
        let length = usize::from(instruction.length());
        generator.keep(&mut random, &bytes[..length]);
        assert_eq!(decode(mode, &bytes[..length]), Ok(instruction));
        for shorter in 0..length {
            let result = decode(mode, &bytes[..shorter]);
            assert_eq!(result, Err(DecodeError::Truncated), "{mode:?} {bytes:02x?}");
        }
    }
}

#[test]
fn limits_length() {
    // add dword [rax + disp32], imm32 has 10 bytes.
    for prefixes in 0..16 {
        let mut bytes = vec![0x3e; prefixes];
        bytes.extend([0x81, 0x80, 1, 2, 3, 4, 5, 6, 7, 8]);
        let result = decode(Mode::Long64, &bytes).map(|instruction| instruction.length());
        if prefixes <= 5 {
            assert_eq!(result.map(usize::from), Ok(prefixes + 10));
        } else {
            assert_eq!(result, Err(DecodeError::TooLong));
        }
    }
    assert_eq!(decode(Mode::Long64, &[0x66; 20]), Err(DecodeError::TooLong));
    assert_eq!(
        decode(Mode::Long64, &[0x66; 14]),
        Err(DecodeError::Truncated)
    );
    assert_eq!(decode(Mode::Real, &[]), Err(DecodeError::Truncated));
}

#[test]
fn tells_what_accesses_one_place() {
    // mov, rep stos; movs, push, pop, jmp through memory
    let one: [&[u8]; 2] = [&[0x8b, 0x03], &[0xf3, 0xab]];
    let more: [&[u8]; 4] = [&[0xa5], &[0xff, 0x33], &[0x8f, 0x03], &[0xff, 0x23]];
    for (cases, expected) in [(&one[..], true), (&more[..], false)] {
        for bytes in cases {
            let instruction = decode(Mode::Long64, bytes).unwrap();
            assert_eq!(instruction.accesses_one_place(), expected, "{bytes:x?}");
        }
    }
}
