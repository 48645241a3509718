// SPDX-License-Identifier: GPL-2.0

//! Arguments of ioctls, typed.

use crate::linux::uaccess::{
    self,
    Plain, //
};
use kernel::prelude::*;

/// An ioctl whose argument points to a `T`.
pub(super) struct Command<T> {
    _argument: core::marker::PhantomData<T>,
}

/// Returns the size of the argument that an ioctl number tells.
const fn argument_size(number: u32) -> usize {
    // CAST: Fourteen bits.
    (number >> 16 & 0x3fff) as usize
}

impl<T: Plain> Command<T> {
    /// Returns the ioctl; fails to build if its number tells another size than that of `T`.
    pub(super) const fn new(number: u32) -> Self {
        assert!(argument_size(number) == size_of::<T>(), "wrong argument");
        Self {
            _argument: core::marker::PhantomData,
        }
    }

    /// Copies the argument from the client.
    pub(super) fn read(&self, address: usize) -> Result<T> {
        uaccess::read(address)
    }

    /// Copies the argument to the client.
    pub(super) fn write(&self, address: usize, value: &T) -> Result {
        uaccess::write(address, value)
    }
}

/// Makes the [`Command`] of an ioctl, checked at compile time.
macro_rules! command {
    ($number:ident: $argument:ty) => {{
        const COMMAND: $crate::abi::command::Command<$argument> =
            $crate::abi::command::Command::new($crate::bindings::$number);
        COMMAND
    }};
}

pub(super) use command;
