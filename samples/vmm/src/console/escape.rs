// SPDX-License-Identifier: GPL-2.0

//! Keys that are not for the guest.

/// The key that starts an escape.
const CTRL_A: u8 = 1;

/// What a key does.
#[derive(Debug, PartialEq)]
pub enum Key {
    /// The guest gets this byte.
    Type(u8),
    /// It is the first of two, or unknown behind the first.
    Nothing,
    /// The machine ends.
    Quit,
}

/// Watches for Ctrl-A.
#[derive(Debug, Default)]
pub struct Escape {
    escaped: bool,
}

impl Escape {
    /// Takes a key.
    pub fn press(&mut self, byte: u8) -> Key {
        if !std::mem::take(&mut self.escaped) {
            self.escaped = byte == CTRL_A;
            return if self.escaped {
                Key::Nothing
            } else {
                Key::Type(byte)
            };
        }
        match byte {
            b'x' | b'X' => Key::Quit,
            CTRL_A => Key::Type(CTRL_A),
            _ => Key::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(keys: &[u8]) -> Vec<Key> {
        let mut escape = Escape::default();
        keys.iter().map(|&key| escape.press(key)).collect()
    }

    #[test]
    fn only_ctrl_a_x_quits() {
        assert_eq!(press(b"x"), [Key::Type(b'x')]);
        assert_eq!(press(b"\x01x"), [Key::Nothing, Key::Quit]);
        assert_eq!(
            press(b"\x01ax"),
            [Key::Nothing, Key::Nothing, Key::Type(b'x')]
        );
    }

    #[test]
    fn ctrl_a_twice_is_one() {
        assert_eq!(
            press(b"\x01\x01x"),
            [Key::Nothing, Key::Type(1), Key::Type(b'x')]
        );
    }
}
