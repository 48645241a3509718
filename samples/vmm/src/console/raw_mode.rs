// SPDX-License-Identifier: GPL-2.0

//! A terminal that passes every key on.

use std::io::IsTerminal;

use anyhow::Context;
use anyhow::Result;

/// Standard input's file descriptor.
const STDIN: libc::c_int = libc::STDIN_FILENO;

/// The terminal is in raw mode while this lives.
pub struct RawMode {
    before: libc::termios,
}

impl RawMode {
    /// Puts the terminal that standard input is into raw mode; returns None if it is none.
    pub fn enter() -> Result<Option<Self>> {
        if !std::io::stdin().is_terminal() {
            return Ok(None);
        }
        let before = get().context("cannot read the terminal's mode")?;
        let mut raw = before;
        // SAFETY: Changes a structure that is borrowed for the call.
        unsafe { libc::cfmakeraw(&mut raw) };
        set(&raw).context("cannot set the terminal's mode")?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nothing can be done if this fails.
        let _ = set(&self.before);
    }
}

/// Returns the terminal's mode.
fn get() -> std::io::Result<libc::termios> {
    let mut mode = std::mem::MaybeUninit::uninit();
    // SAFETY: The call writes to a place for one structure.
    if unsafe { libc::tcgetattr(STDIN, mode.as_mut_ptr()) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: The call succeeded, so it has filled the structure.
    Ok(unsafe { mode.assume_init() })
}

/// Sets the terminal's mode.
fn set(mode: &libc::termios) -> std::io::Result<()> {
    // SAFETY: The call reads a structure that is borrowed for it.
    match unsafe { libc::tcsetattr(STDIN, libc::TCSANOW, mode) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
