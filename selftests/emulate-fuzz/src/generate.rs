// SPDX-License-Identifier: GPL-2.0

//! Random instructions, and mutations of earlier ones.

use super::random::Random;

/// The bytes given to a decoder.
pub(super) type Bytes = Vec<u8>;

/// Prefixes, those in front that change the most.
const PREFIXES: [u8; 11] = [
    0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65,
];

/// Opcodes of one byte with emulated instructions, beside those below 40.
const ONE_BYTE: [u8; 50] = [
    0x63, 0x6c, 0x6d, 0x6e, 0x6f, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a,
    0x8b, 0x8f, 0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad,
    0xae, 0xaf, 0xc6, 0xc7, 0xe4, 0xe5, 0xe6, 0xe7, 0xec, 0xed, 0xee, 0xef, 0xf6, 0xf7, 0xf6, 0xf7,
    0xfe, 0xff,
];

/// Second bytes, after 0F, with emulated instructions.
const TWO_BYTE: [u8; 15] = [
    0xa3, 0xab, 0xb3, 0xbb, 0xba, 0xb0, 0xb1, 0xb6, 0xb7, 0xbe, 0xbf, 0xc0, 0xc1, 0xc3, 0xc7,
];

/// Makes instructions.
pub(super) struct Generator {
    /// Instructions that were worth keeping, to be mutated.
    corpus: Vec<Bytes>,
}

impl Generator {
    /// Returns a generator without memory of earlier instructions.
    pub(super) fn new() -> Self {
        Self { corpus: Vec::new() }
    }

    /// Returns an instruction of up to 16 bytes, maybe cut off.
    pub(super) fn next(&mut self, random: &mut Random) -> Bytes {
        let mut bytes = match random.below(8) {
            0 => Vec::new(),
            1..=3 if !self.corpus.is_empty() => {
                let at = random.below(self.corpus.len());
                let mut bytes = self.corpus[at].clone();
                for _ in 0..=random.below(3) {
                    mutate(random, &mut bytes);
                }
                bytes
            }
            _ => instruction(random),
        };
        while bytes.len() < 16 {
            bytes.push(random.byte());
        }
        bytes.truncate(16);
        if random.one_in(16) {
            bytes.truncate(random.below(16));
        }
        bytes
    }

    /// Notes that `bytes` are worth to be mutated.
    pub(super) fn keep(&mut self, random: &mut Random, bytes: &[u8]) {
        if self.corpus.len() < 4096 {
            self.corpus.push(bytes.to_vec());
        } else {
            let at = random.below(self.corpus.len());
            self.corpus[at] = bytes.to_vec();
        }
    }
}

/// Returns prefixes and an opcode that is likely to be emulated.
pub(super) fn instruction(random: &mut Random) -> Bytes {
    let mut bytes = Vec::new();
    let prefixes = random.choose(&[0, 0, 0, 1, 1, 2, 3, 5]);
    for _ in 0..prefixes {
        bytes.push(random.choose(&PREFIXES));
    }
    if random.one_in(3) {
        bytes.push(0x40 | random.byte() & 15);
    }
    match random.below(8) {
        0 => bytes.push(random.byte()),
        1 | 2 => bytes.push(random.byte() & 0x3f),
        3..=5 => bytes.push(random.choose(&ONE_BYTE)),
        6 => bytes.extend([0x0f, random.choose(&TWO_BYTE)]),
        _ => bytes.extend([0x0f, 0x38, 0xf0 | random.byte() & 1]),
    }
    bytes
}

/// Changes, inserts or removes a byte.
fn mutate(random: &mut Random, bytes: &mut Bytes) {
    if bytes.is_empty() {
        return;
    }
    let at = random.below(bytes.len());
    match random.below(5) {
        0 => bytes[at] = random.byte(),
        1 | 2 => bytes[at] ^= 1 << random.below(8),
        3 => bytes.insert(at, random.choose(&PREFIXES)),
        _ => {
            bytes.remove(at);
        }
    }
}
