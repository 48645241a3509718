// SPDX-License-Identifier: GPL-2.0

//! The local APIC of a vCPU: registers, priorities, timer and messages, without callbacks.
//!
//! # Vocabulary
//!
//! - *Slot*: one of the 256 16-byte strides of the register page; a [`Register`] names one.
//! - *Message*: what travels between APICs and from devices to them ([`Message`]): IPIs and MSIs.
//! - *Post*: set a request in the IRR, or, where the processor has that, in a descriptor beside it
//!   ([`PostedInterrupts`]). *Acknowledge*: move it from the IRR to the ISR, because the vCPU takes it.
//!   *EOI*: remove the highest one from the ISR.
//! - *Class*: the upper four bits of a vector or of the TPR, the unit in which priorities compare.
//!
//! # Who owns what
//!
//! [`Lapic`] is shared. Any thread may look up whether a message concerns it
//! ([`Lapic::receives`]) and deliver to it ([`Lapic::accept`]); these touch atomic words only.
//! [`Owned`] belongs to the thread that holds the vCPU, and `&mut Owned` is the proof of that: it
//! is demanded wherever the guest's own accesses, the timer or the configuration come in.
//!
//! Nothing here calls out. A guest's access yields an [`Effect`], a delivery an [`Action`], and
//! timers are asked for by [`ArmTimer`]; to send, kick, arm and exit is the caller's. A
//! [`DestinationMap`] tells whom a message concerns without asking each APIC.
//!
//! ```text
//! guest  -- write()/msr_write() --> Effect::Ipi(m) -- receives(m), accept(m) --> Action -> kick
//! host timer fired --> expire() --> Expired { action, arm }
//! before VM entry: next_interrupt() -> inject -> acknowledge(); tpr_threshold()
//! with APICv:      accept() posts; take_posted(), status() -> the processor; written(), ended()
//! ```
//!
//! # Ordering
//!
//! Posting is an atomic read-modify-write after the trigger mode was stored. Callers kick after
//! posting, and the owner looks at the requests after it has announced to enter the guest.
//!
//! This module depends on `core` only, so that its tests also run on the host.

#![allow(
    dead_code,
    reason = "the register file is complete; not every part has its caller yet"
)]

mod access;
mod base;
mod deliver;
mod destination;
mod map;
mod message;
mod page;
mod posted;
mod priority;
mod register;
mod save;
mod state;
mod timer;
mod vectors;
mod word;

#[allow(unused_imports, reason = "see `dead_code`")]
pub(crate) use self::{
    access::{
        Effect,
        GeneralProtection,
        Read,
        VIRTUALIZED_READS, //
    },
    base::{
        after_reset as base_after_reset,
        change as change_base,
        BaseChange,
        Mode,
        DEFAULT_ADDRESS, //
    },
    deliver::{
        Action,
        Expired, //
    },
    destination::{
        lowest_priority_index,
        Sender, //
    },
    map::{
        DestinationMap,
        Found,
        Identity,
        Receivers,
        MAX_APICS,
        MIN_IDS, //
    },
    message::{
        DeliveryMode,
        Message,
        Shorthand,
        Trigger, //
    },
    page::{
        ApicPage,
        Page, //
    },
    posted::PostedInterrupts,
    priority::{
        tpr_threshold,
        Priorities, //
    },
    register::{
        Lvt,
        Register, //
    },
    save::{
        IdMismatch,
        SaveArea,
        SAVE_SIZE, //
    },
    state::{
        Config,
        DirectedEoi,
        Lapic,
        Owned,
        Reset, //
    },
    timer::{
        ArmTimer,
        Now,
        TimerMode, //
    },
};
