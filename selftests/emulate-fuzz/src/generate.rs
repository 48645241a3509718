// SPDX-License-Identifier: GPL-2.0

//! Random instructions, and mutations of earlier ones.

use super::random::Random;

/// The bytes given to a decoder.
pub(super) type Bytes = Vec<u8>;

/// Prefixes, those in front that change the most.
const PREFIXES: [u8; 11] = [
    0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65,
];

/// Second bytes, after 0F, with emulated instructions.
const TWO_BYTE: [u8; 100] = [
    0x00, 0x01, 0x06, 0x08, 0x09, 0x0b, 0x10, 0x11, 0x1f, 0x20, 0x21, 0x22, 0x23, 0x28, 0x29, 0x2b,
    0x30, 0x31, 0x32, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x4b, 0x4c,
    0x4d, 0x4e, 0x4f, 0x6f, 0x7f, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a,
    0x8b, 0x8c, 0x8d, 0x8e, 0x8f, 0x90, 0x92, 0x94, 0x9b, 0x9f, 0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5,
    0xa8, 0xa9, 0xab, 0xac, 0xad, 0xae, 0xaf, 0xb0, 0xb1, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xba,
    0xbb, 0xbc, 0xbd, 0xbe, 0xbf, 0xc0, 0xc1, 0xc3, 0xc7, 0xc8, 0xc9, 0xca, 0xcb, 0xcc, 0xcd, 0xce,
    0xcf, 0xe7, 0xae, 0x01,
];

/// Opcodes behind a VEX prefix, in either map.
const VECTOR: [u8; 9] = [0x10, 0x11, 0x28, 0x29, 0x2a, 0x2b, 0x6f, 0x7f, 0xe7];

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
    match random.below(16) {
        0..=8 => bytes.push(random.byte()),
        9..=12 => bytes.extend([0x0f, random.choose(&TWO_BYTE)]),
        13 => bytes.extend([0x0f, random.byte()]),
        14 => bytes.extend([0x0f, 0x38, random.choose(&[0x2a, 0xf0, 0xf1])]),
        _ => {
            // Mostly those without a second source.
            let unused = if random.one_in(8) { 0 } else { 0x78 };
            let last = (random.byte() & 7) | unused;
            if random.one_in(2) {
                let map = random.byte() & 0xe0 | random.choose(&[1, 1, 2]);
                bytes.extend([0xc4, map, last]);
            } else {
                bytes.extend([0xc5, last | random.byte() & 0x80]);
            }
            bytes.push(random.choose(&VECTOR));
        }
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
