// SPDX-License-Identifier: GPL-2.0

//! Tracepoints of this module.
//!
//! As `kernel::declare_trace!`, which finds the kernel's own tracepoints only. Where the kernel is built
//! without jump labels, whether one is on is read in place, without a call.

/// A type of arguments of which any value is fine for a trace event, which only stores it.
pub(crate) trait Number: Sized {
    /// Returns the number itself.
    #[inline(always)]
    fn number(self) -> Self {
        self
    }
}

impl Number for bool {}
impl Number for i32 {}
impl Number for u32 {}
impl Number for u64 {}

/// Calls `f`, which is rarely done, out of the way of what is around it.
#[cold]
#[inline(never)]
pub(crate) fn rarely(f: impl FnOnce()) {
    f();
}

/// Makes a function for each of these trace events of the module's header.
///
/// The function takes the event's arguments as a closure that is called only while somebody traces the
/// event. They are numbers, so there is nothing that a caller could get wrong but their meaning. RCU must
/// be watching, as it is everywhere but around the guest itself.
macro_rules! tracepoints {
    ($(
        $(#[$attribute:meta])*
        $name:ident($($argument:ident: $type:ty),* $(,)?);
    )*) => { ::kernel::macros::paste! { $(
        $(#[$attribute])*
        #[inline(always)]
        pub(crate) fn $name(arguments: impl FnOnce() -> ($($type,)*)) {
            let on = $crate::linux::tracepoint::is_on!([<__tracepoint_ $name>]);
            if on {
                $crate::linux::tracepoint::rarely(|| {
                    let ($($argument,)*) = arguments();
                    $(let $argument = $crate::linux::tracepoint::Number::number($argument);)*
                    // SAFETY: The event exists, and takes numbers, which it copies.
                    unsafe { $crate::bindings::[<rust_do_trace_ $name>]($($argument),*) };
                });
            }
        }
    )* } };
}

/// Returns whether somebody traces the event of this tracepoint.
#[cfg(all(CONFIG_TRACEPOINTS, CONFIG_JUMP_LABEL))]
macro_rules! is_on {
    ($tracepoint:ident) => {
        // SAFETY: It is the key of a tracepoint, which C defines.
        unsafe {
            ::kernel::jump_label::static_branch_unlikely!(
                $crate::bindings::$tracepoint,
                $crate::bindings::tracepoint,
                key
            )
        }
    };
}

/// Returns whether somebody traces the event of this tracepoint.
#[cfg(all(CONFIG_TRACEPOINTS, not(CONFIG_JUMP_LABEL)))]
macro_rules! is_on {
    ($tracepoint:ident) => {{
        let tracepoint = &raw const $crate::bindings::$tracepoint;
        // SAFETY: The tracepoint is static.
        let counter = unsafe { &raw const (*tracepoint).key.key.enabled.counter };
        // SAFETY: It is an aligned word that others change at once.
        unsafe { counter.read_volatile() > 0 }
    }};
}

/// Returns that nobody traces: the kernel has no tracepoints.
#[cfg(not(CONFIG_TRACEPOINTS))]
macro_rules! is_on {
    ($tracepoint:ident) => {
        false
    };
}

pub(crate) use {
    is_on,
    tracepoints, //
};
