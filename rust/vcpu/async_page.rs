// SPDX-License-Identifier: GPL-2.0

//! Pages that are away when the guest accesses them, as in swap: asynchronous page faults.
//!
//! A kernel thread brings such a page in. Meanwhile a guest that knows of KVM runs something else: it gets
//! a #PF that names the access by a token instead of an address, and later, when the page is there, an
//! interrupt with that token. Any other vCPU waits as if in HLT, so that at least interrupts reach the
//! guest. See MSR_KVM_ASYNC_PF_EN in Documentation/virt/kvm/x86/msr.rst of the kernel's source.
//!
//! ```text
//!   flags | token     the area in guest memory
//!     1               the #PF that comes is no ordinary one; the guest clears it
//!             token   of the page that is there; the guest clears it, and writes the ACK MSR
//! ```

use super::{
    pv::Feature,
    request::{
        Doorbell,
        Request, //
    },
    state::{
        MpState,
        State, //
    },
    stats::Event,
    Owned,
    Vcpu, //
};
use crate::{
    linux::{
        fetch::{
            Fetch,
            Fetched, //
        },
        user_page::Wait, //
    },
    memory::{
        Area,
        Place, //
    },
    mmu::{
        FaultAccess,
        Resolved, //
    },
    vm::Vm,
    vmx::vmcs::CurrentVmcs,
    x86::{
        addr::{
            Gpa,
            Hva, //
        },
        control_regs::Cr0,
        exception::Exception,
        guest_msr::MsrError,
        msr_index, //
    }, //
};
use core::mem;
use kernel::{
    alloc::flags::GFP_NOWAIT,
    prelude::*,
    sync::Arc, //
};

/// The most pages that a vCPU is without at a time; for others it waits.
const MOST: usize = 64;

/// In the control MSR: the guest is told.
const ENABLED: u64 = 1 << 0;
/// Likewise: at privilege level 0 too.
const SEND_ALWAYS: u64 = 1 << 1;
/// Likewise: while it runs a guest of its own, by an exit to itself.
const AS_PF_VMEXIT: u64 = 1 << 2;
/// Likewise: that a page is there, by an interrupt. Nothing is told without.
const AS_INTERRUPT: u64 = 1 << 3;
/// Likewise: what is not its address. Of this, bits 4 and 5 must be 0.
const FLAGS: u64 = 0x3f;
const RESERVED: u64 = 0x30;

/// Bytes of the area.
const AREA_SIZE: u64 = 64;
/// What `flags` is when a page is away.
const NOT_PRESENT: u32 = 1;
/// Where `token` is in the area.
const TOKEN_OFFSET: u64 = 4;
/// The token that stands for all pages.
const EVERY_PAGE: u32 = !0;
/// The bits of a token that are the vCPU's number.
const NUMBER_BITS: u32 = 12;

/// Has the vCPU look at its pages.
struct Ring(Arc<Doorbell>);

impl Fetched for Ring {
    fn fetched(&self) {
        self.0.ring(Request::AsyncPage);
    }
}

/// A page on its way.
struct UnderWay {
    fetch: Arc<Fetch<Ring>>,
    gpa: Gpa,
    token: u32,
    /// The guest was told that it is away.
    told: bool,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.fetch.cancel();
    }
}

/// Pages that a vCPU accessed while they were away.
pub(crate) struct AsyncPages {
    control: u64,
    place: Place,
    interrupt: u64,
    /// What makes the next token differ from others.
    serial: u32,
    /// The guest is to be told that every page is there: it asked for no others to be told.
    wakes_all: bool,
    /// What is under way is to be forgotten first.
    forgets: bool,
    under_way: KVec<UnderWay>,
}

impl AsyncPages {
    /// Returns those of a new vCPU.
    pub(super) fn new() -> Self {
        Self {
            control: 0,
            place: Place::default(),
            interrupt: 0,
            serial: 0,
            wakes_all: false,
            forgets: false,
            under_way: KVec::new(),
        }
    }

    /// Forgets them, and that the guest is told. May free memory.
    pub(super) fn reset(&mut self) {
        self.control = 0;
        self.interrupt = 0;
        self.wakes_all = false;
        self.forgets = false;
        self.under_way.clear();
    }

    /// Returns whether a page is there that was away, or the guest is to be told something.
    pub(super) fn has_ready(&self) -> bool {
        self.wakes_all || self.ready().is_some()
    }

    /// Returns the index of a page that is there.
    fn ready(&self) -> Option<usize> {
        self.under_way.iter().position(|page| page.fetch.is_over())
    }

    /// Returns whether the guest is told of pages.
    fn tells(&self) -> bool {
        is_enabled(self.control)
    }

    /// Opens the area in guest memory.
    fn area<'a>(&mut self, vm: &'a Vm) -> Area<'a> {
        let gpa = Gpa::new(self.control & !FLAGS);
        self.place.open(vm.memory(), gpa, AREA_SIZE)
    }

    /// Returns a token that is not 0, for the vCPU with number `id`.
    fn make_token(&mut self, id: u32) -> u32 {
        if self.serial << NUMBER_BITS == 0 {
            self.serial = 1;
        }
        let token = self.serial << NUMBER_BITS | id;
        self.serial = self.serial.wrapping_add(1);
        token
    }
}

/// Returns whether this value of the control MSR has the guest told of pages.
fn is_enabled(control: u64) -> bool {
    control & (ENABLED | AS_INTERRUPT) == ENABLED | AS_INTERRUPT
}

impl State {
    /// Returns the value of one of the MSRs.
    pub(super) fn read_async_page_msr(&self, index: u32) -> Result<u64, MsrError> {
        let pages = &self.async_pages;
        match index {
            msr_index::KVM_ASYNC_PF_EN => self.need_pv(Feature::AsyncPf).map(|()| pages.control),
            msr_index::KVM_ASYNC_PF_INT => {
                self.need_pv(Feature::AsyncPfInt).map(|()| pages.interrupt)
            }
            msr_index::KVM_ASYNC_PF_ACK => self.need_pv(Feature::AsyncPfInt).map(|()| 0),
            _ => Err(MsrError::Unknown),
        }
    }

    /// Writes one of the MSRs; what follows from it is done before the next VM entry.
    pub(super) fn write_async_page_msr(
        &mut self,
        vm: &Vm,
        vcpu: &Vcpu,
        index: u32,
        value: u64,
    ) -> Result<(), MsrError> {
        let has_apic = vcpu.controller().is_some();
        match index {
            msr_index::KVM_ASYNC_PF_EN => {
                self.need_pv(Feature::AsyncPf)?;
                self.set_async_page_control(vm, has_apic, value)?;
            }
            msr_index::KVM_ASYNC_PF_INT => {
                self.need_pv(Feature::AsyncPfInt)?;
                if value > 0xff || !has_apic {
                    return Err(MsrError::Invalid);
                }
                self.async_pages.interrupt = value;
                return Ok(());
            }
            msr_index::KVM_ASYNC_PF_ACK => self.need_pv(Feature::AsyncPfInt)?,
            _ => return Err(MsrError::Unknown),
        }
        vcpu.doorbell().set(Request::AsyncPage);
        Ok(())
    }

    fn set_async_page_control(
        &mut self,
        vm: &Vm,
        has_apic: bool,
        value: u64,
    ) -> Result<(), MsrError> {
        let lacks = |bit: u64, feature| value & bit != 0 && !self.has_pv(feature);
        let area = Gpa::new(value & !FLAGS);
        if value & RESERVED != 0
            || lacks(AS_PF_VMEXIT, Feature::AsyncPfVmexit)
            || lacks(AS_INTERRUPT, Feature::AsyncPfInt)
            || value != 0 && !has_apic
            || is_enabled(value) && !vm.memory().is_writable(area)
        {
            return Err(MsrError::Invalid);
        }
        let pages = &mut self.async_pages;
        pages.control = value;
        if pages.tells() {
            // The guest may wait for pages of which it was told before it was moved here.
            pages.wakes_all |= pages.forgets || pages.ready().is_none();
        } else {
            pages.wakes_all = false;
            pages.forgets = true;
        }
        Ok(())
    }

    /// Returns whether the guest can be told now that a page is away.
    fn can_be_told(&self, vmcs: &CurrentVmcs<'_>) -> bool {
        let control = self.async_pages.control;
        is_enabled(control)
            && (control & SEND_ALWAYS != 0 || self.cpl(vmcs) > 0)
            && self.cr0(vmcs).contains(Cr0::PG)
    }
}

impl Owned {
    /// Has somebody else wait for the page of `gpa`, at `hva` of the client's; returns whether that was
    /// possible. The guest then goes on with something else, or the vCPU waits as in HLT.
    pub(super) fn defer_page(&mut self, vm: &Vm, vcpu: &Vcpu, gpa: Gpa, hva: Hva) -> bool {
        let events = &self.state.events;
        if vcpu.controller().is_none() || events.interrupted.is_some() || events.exception.is_some()
        {
            return false;
        }
        // With interrupts off, not even they could end a wait.
        let (open, told) =
            self.with_vmcs(|vmcs, state| (state.takes_interrupts(vmcs), state.can_be_told(vmcs)));
        // Nor is it known here whether the guest waits, if HLT does not exit.
        if !open || !told && self.state.disabled_exits.hlt() {
            return false;
        }
        let pages = &mut self.state.async_pages;
        let known = |page: &UnderWay| page.gpa.gfn() == gpa.gfn();
        if pages.under_way.iter().any(known) {
            // What the guest does instead needs the page too.
            self.state.mp_state = MpState::AwaitsPage;
            return true;
        }
        self.start_fetch(vm, vcpu, gpa, hva, told).is_ok()
    }

    /// Has the page brought in, and tells the guest if it is to be `told`.
    fn start_fetch(&mut self, vm: &Vm, vcpu: &Vcpu, gpa: Gpa, hva: Hva, told: bool) -> Result {
        let pages = &mut self.state.async_pages;
        if pages.under_way.len() >= MOST {
            return Err(EBUSY);
        }
        // Rather than wait for memory, wait for the page.
        pages.under_way.reserve(1, GFP_NOWAIT)?;
        let listener = Ring(vcpu.doorbell().clone());
        let fetch = Fetch::start(&vm.hypervisor().fetches, hva, listener, GFP_NOWAIT)?;
        let token = pages.make_token(vcpu.id());
        let told = told && pages.area(vm).write(0, NOT_PRESENT).is_ok();
        let page = UnderWay {
            fetch,
            gpa,
            token,
            told,
        };
        // There is room.
        let _ = pages.under_way.push_within_capacity(page);
        if told {
            self.state.raise(Exception::page_fault(0, u64::from(token)));
        } else {
            self.state.mp_state = MpState::AwaitsPage;
        }
        Ok(())
    }

    /// Does what the MSRs ask for, and lets the guest go on with pages that are there.
    pub(super) fn update_async_pages(&mut self, vm: &Vm, vcpu: &Vcpu) {
        if mem::take(&mut self.state.async_pages.forgets) {
            self.state.async_pages.under_way.clear();
            // The guest tries again.
            if self.state.mp_state == MpState::AwaitsPage {
                self.state.mp_state = MpState::Runnable;
            }
        }
        loop {
            let pages = &self.state.async_pages;
            let next = pages.ready();
            if next.is_none() && !pages.wakes_all {
                return;
            }
            let tells = pages.tells();
            // One at a time, while the guest's local APIC takes interrupts.
            if tells && !(vcpu.is_apic_software_enabled() && self.has_free_token(vm)) {
                return;
            }
            self.finish_page(vm, vcpu, next, tells);
        }
    }

    /// Returns whether the guest has read the last token.
    fn has_free_token(&mut self, vm: &Vm) -> bool {
        let area = self.state.async_pages.area(vm);
        area.read(TOKEN_OFFSET) == Ok(0_u32)
    }

    /// Lets the guest go on with the page at index `next`, or first with every page if that is to be told.
    fn finish_page(&mut self, vm: &Vm, vcpu: &Vcpu, next: Option<usize>, tells: bool) {
        let pages = &mut self.state.async_pages;
        let mut told = true;
        let mut token = EVERY_PAGE;
        if !mem::take(&mut pages.wakes_all) {
            let page = next.map(|index| pages.under_way.remove(index));
            let Some(Ok(page)) = page else {
                return;
            };
            (told, token) = (page.told, page.token);
            map(vm, vcpu, page.gpa);
        }
        if told && tells {
            let area = self.state.async_pages.area(vm);
            if area.write(TOKEN_OFFSET, token).is_ok() {
                drop(area);
                // CAST: The MSR has no more than a vector.
                vcpu.post_own(self.state.async_pages.interrupt as u8);
            }
        }
        self.end_wait();
    }

    /// Lets the vCPU go on, as KVM does also where it halted by itself.
    fn end_wait(&mut self) {
        if let MpState::AwaitsPage | MpState::Halted | MpState::ApResetHold = self.state.mp_state {
            self.state.mp_state = MpState::Runnable;
        }
    }
}

/// Maps a page that has come, so that the guest need not ask for it again. What it does with it, it tells
/// then.
///
/// If it is away still, since it could not be fetched to be written, the vCPU waits for it: the guest would
/// only ask again.
fn map(vm: &Vm, vcpu: &Vcpu, gpa: Gpa) {
    let access = FaultAccess {
        read: true,
        write: false,
        execute: false,
    };
    if let Ok(Resolved::Mapped) = vm.mmu().fault(gpa, access, vcpu.ring(), Wait::Yes) {
        vcpu.count_event(Event::FaultFixed);
    }
}
