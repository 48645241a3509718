// SPDX-License-Identifier: GPL-2.0

//! KVM_RUN: from the client into the guest and back.
//!
//! ```text
//!   run() ---- finish what the client did; sleep while halted
//!     |
//!     +-> enter_guest() -- VMCS current, preemption off
//!     |     |
//!     |     +-> entry ... exit -- interrupts off; then exits::handle(), which cannot sleep
//!     |     +-- again, until the exit needs to sleep, the client, or a request or signal waits
//!     |
//!     +-> exits::finish() -- may sleep
//! ```

use super::{
    emulation::client,
    exits::{
        self,
        Step, //
    },
    halt,
    io,
    pending::Pending,
    request::Request,
    reset,
    restricted::invalid,
    state::{
        MpState,
        State, //
    },
    stats::Event,
    tracing,
    Owned,
    Vcpu, //
};
use crate::{
    bindings,
    linux::{
        fpu,
        guest,
        host::{
            self,
            Xstate, //
        },
        preempt::{
            IrqGuard,
            PreemptGuard, //
        },
        speculation,
        task, //
    },
    memory::DirtyRing,
    vm::Vm,
    vmx::{
        self,
        exit::{
            self,
            Exit,
            ENTRY_FAILURE, //
        },
        field,
        inject::EventInfo,
        run::{
            EntryError,
            Tags, //
        },
        vmcs::CurrentVmcs, //
    },
    x86::{
        control_regs::{
            rules,
            Cr4,
            Dr6,
            Rflags, //
        },
        cpuid::Feature, //
    }, //
};
use kernel::prelude::*;

/// How KVM_RUN goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// With the guest.
    Resume,
    /// With the client; the shared page says what for.
    ToUser,
}

/// Runs the guest until its client is needed or a signal waits.
///
/// `EINTR` if a signal waits (the shared page then says KVM_EXIT_INTR) or the client asked to return at
/// once.
pub(crate) fn run(vm: &Vm, vcpu: &Vcpu, owned: &mut Owned) -> Result {
    owned.state.fpu.load();
    let result = run_with_fpu(vm, vcpu, owned);
    owned.state.fpu.unload();
    vcpu.count_event(Event::FpuReloaded);
    owned.with_vmcs(|vmcs, state| {
        let if_flag = state.rflags(vmcs) & Rflags::IF.value() != 0;
        // PICs in the kernel ask nothing of the client.
        let ready =
            vcpu.has_pic() || vcpu.accepts_client_interrupt() && state.takes_client_interrupt(vmcs);
        let (cr8, base) = (vcpu.cr8(state), vcpu.apic_base(state));
        vcpu.run_page()
            .set_state(if_flag, ready, u64::from(cr8), base);
    });
    result
}

fn run_with_fpu(vm: &Vm, vcpu: &Vcpu, owned: &mut Owned) -> Result {
    if owned.state.mp_state == MpState::Uninitialized {
        if vcpu.run_page().immediate_exit() {
            return Err(EINTR);
        }
        // An application processor waits for INIT and a startup IPI, or for a signal.
        return match halt::wait(vm, vcpu, owned)? {
            Next::Resume => Err(EAGAIN),
            Next::ToUser => Ok(()),
        };
    }
    if vcpu.controller().is_none() {
        // The client has the local APIC, and with it the task priority.
        let cr8 = rules::check_cr8(vcpu.run_page().cr8()).map_err(|_| EINVAL)?;
        vcpu.set_cr8(&mut owned.state, cr8);
    }
    if complete(vm, vcpu, owned)? == Next::ToUser {
        return Ok(());
    }
    if vcpu.run_page().immediate_exit() {
        return Err(EINTR);
    }
    // What fails from here on without a reason of its own.
    vcpu.run_page().set_exit_reason(bindings::KVM_EXIT_UNKNOWN);
    loop {
        let next = if owned.state.mp_state == MpState::Runnable {
            enter_guest(vm, vcpu, owned)?
        } else {
            halt::wait(vm, vcpu, owned)?
        };
        if next == Next::ToUser {
            return Ok(());
        }
        if task::work_pending() {
            task::handle_work().inspect_err(|_| {
                vcpu.count_event(Event::SignalExit);
                vcpu.run_page().set_exit_reason(bindings::KVM_EXIT_INTR);
            })?;
        }
    }
}

/// Finishes what the client was asked to do.
fn complete(vm: &Vm, vcpu: &Vcpu, owned: &mut Owned) -> Result<Next> {
    match owned.state.pending.take() {
        None => Ok(Next::Resume),
        Some(Pending::Io {
            io,
            linear_rip,
            length,
        }) => {
            owned.with_vmcs(|vmcs, state| {
                state.complete_io(vcpu, vmcs, io, linear_rip, length);
            });
            Ok(Next::Resume)
        }
        Some(Pending::StringIo(io)) => io::complete_string_io(vm, vcpu, owned, io),
        Some(Pending::Msr { read, length }) => {
            owned.with_vmcs(|vmcs, state| state.complete_msr(vcpu, vmcs, read, length));
            Ok(Next::Resume)
        }
        Some(Pending::Remainder {
            remainder,
            read,
            rip,
        }) => {
            client::complete_remainder(vcpu, owned, remainder, read, rip);
            Ok(Next::Resume)
        }
        Some(Pending::Hypercall { length }) => {
            owned.with_vmcs(|vmcs, state| state.complete_hypercall(vcpu, vmcs, length));
            Ok(Next::Resume)
        }
        Some(Pending::Mmio {
            instruction,
            rip,
            known,
            asked,
        }) => client::complete(vm, vcpu, owned, instruction, rip, known, asked),
    }
}

/// Looks at what other threads asked for.
pub(super) fn handle_requests(vm: &Vm, vcpu: &Vcpu, owned: &mut Owned) {
    if !vcpu.doorbell().is_pending() {
        return;
    }
    let taken = vcpu.doorbell().take();
    if taken.has(Request::Intercepts) {
        owned.update_intercepts(vm);
    }
    if taken.has(Request::ApicAccess) {
        owned.follow_apic_mode(vm, vcpu);
    }
    if taken.has(Request::EoiExits) {
        owned.follow_eoi_exits(vm);
    }
    if taken.has(Request::DirtyLogging) {
        owned.follow_dirty_logging(vm, vcpu);
    }
    if taken.has(Request::Clock) {
        owned.update_pv(vm);
    }
    if taken.has(Request::Destinations) {
        vm.update_destinations();
    }
    // What is to be told of pages waits until the local APIC is on.
    if taken.has(Request::AsyncPage) || taken.has(Request::Destinations) {
        owned.update_async_pages(vm, vcpu);
    }
    let state = &mut owned.state;
    if taken.has(Request::TlbFlush) {
        vcpu.count_event(Event::TlbFlush);
        state.owed.add_stale_tables(vcpu.root());
    }
    if taken.has(Request::IoapicLines) {
        if let Some(irqs) = vm.irqs() {
            irqs.request_waiting();
        }
    }
    if taken.has(Request::Timer) {
        vcpu.on_host_timer(state);
    }
    if taken.has(Request::Event) {
        vcpu.count_event(Event::DeliveryRequested);
        let nmis = vcpu.take_nmis();
        if nmis != 0 {
            owned.with_vmcs(|vmcs, state| state.add_nmis(vmcs, nmis));
        }
        vcpu.apply_signals(vm, owned);
    }
}

/// Enters the guest until an exit needs more than can be done without sleeping.
fn enter_guest(vm: &Vm, vcpu: &Vcpu, owned: &mut Owned) -> Result<Next> {
    // The request that led here, if any, needs nothing else.
    if vcpu.ring().is_some_and(DirtyRing::is_soft_full) {
        vcpu.run_page()
            .set_plain(bindings::KVM_EXIT_DIRTY_RING_FULL);
        return Ok(Next::ToUser);
    }
    if owned.pv_may_be_stale() {
        owned.refresh_pv(vm);
    }
    handle_requests(vm, vcpu, owned);
    if owned.state.mp_state != MpState::Runnable {
        return Ok(Next::Resume);
    }
    if let Some(access) = owned.state.vapic.take_access() {
        vcpu.run_page().set_tpr_access(access.rip, access.write);
        return Ok(Next::ToUser);
    }
    if owned.state.events.triple_fault {
        owned.state.events.triple_fault = false;
        vcpu.run_page().set_plain(bindings::KVM_EXIT_SHUTDOWN);
        return Ok(Next::ToUser);
    }
    if let Some(vector) = owned.state.events.ioapic_eoi.take() {
        vcpu.run_page().set_ioapic_eoi(vector);
        return Ok(Next::ToUser);
    }
    if owned.state.events.debug_trap {
        owned.state.events.debug_trap = false;
        owned.with_vmcs(|vmcs, state| vcpu.report_debug(vmcs, state, Dr6::BS.value()));
        return Ok(Next::ToUser);
    }

    if owned.state.restricted.is_some() {
        if let Some(next) = invalid::before_entry(vm, vcpu, owned)? {
            return Ok(next);
        }
    }

    vcpu.fill_vapic(vm.memory(), &mut owned.state);
    vcpu.offer_eoi(vm, &mut owned.state);
    // Whatever led here was no exit that the loop below deals with alone.
    speculation::host_data_touched();
    let step = {
        let preempt = PreemptGuard::new();
        let (vmcs, state) = owned.load(&preempt);
        state.has_run = true;
        let step = run_exits(vm, vcpu, &vmcs, state, &preempt);
        state.leave_nmi_handler();
        match step {
            Step::Later(_) => state.fetch(&vmcs),
            // The thread may lose its CPU as soon as preemption is on.
            Step::Resume => state.note_preemption(vm, vcpu),
            Step::ToUser => {}
        }
        step
    };
    vcpu.read_vapic(vm.memory(), &mut owned.state);
    vcpu.take_back_eoi(vm, &mut owned.state);
    match step {
        Step::Resume => Ok(Next::Resume),
        Step::ToUser => Ok(Next::ToUser),
        Step::Later(later) => exits::finish(vm, vcpu, owned, later),
    }
}

/// Enters the guest again and again, as long as its exits are handled at once.
fn run_exits(
    vm: &Vm,
    vcpu: &Vcpu,
    vmcs: &CurrentVmcs<'_>,
    state: &mut State,
    preempt: &PreemptGuard,
) -> Step {
    loop {
        // An exit that looked at an MSR of the lazily switched state brought the host's back.
        vcpu.host_switch().to_guest(vmcs, preempt);
        let window = vcpu.accepts_client_interrupt() && vcpu.run_page().wants_interrupt_window();
        if window && state.takes_client_interrupt(vmcs) {
            vcpu.count_event(Event::WindowToUser);
            vcpu.run_page()
                .set_plain(bindings::KVM_EXIT_IRQ_WINDOW_OPEN);
            return Step::ToUser;
        }
        let reason = match enter_once(vm, vcpu, vmcs, state, preempt, window) {
            Entered::Exited(reason) => reason,
            Entered::NotNow => return Step::Resume,
            Entered::Failed(EntryError(error)) => {
                vcpu.report_failed_entry(vmcs, u64::from(error));
                return Step::ToUser;
            }
        };
        let exit = Exit::read(vmcs, reason);
        state.note_interrupted(vmcs, &exit);
        match exits::handle(vm, vcpu, vmcs, state, exit) {
            Step::Resume => {}
            step => return step,
        }
        if state.mp_state != MpState::Runnable
            || state.events.come_first()
            || state.vapic.is_used()
            || state.pv_eoi.is_offered()
        {
            return Step::Resume;
        }
    }
}

/// What became of an attempt to enter the guest.
enum Entered {
    /// The guest ran, and exited with this reason.
    Exited(u32),
    /// A request, a signal or a reschedule waits.
    NotNow,
    /// VM entry was refused.
    Failed(EntryError),
}

/// Enters the guest once.
#[inline]
fn enter_once(
    vm: &Vm,
    vcpu: &Vcpu,
    vmcs: &CurrentVmcs<'_>,
    state: &mut State,
    preempt: &PreemptGuard,
    window: bool,
) -> Entered {
    let doorbell = vcpu.doorbell();
    let irqs = IrqGuard::new();
    if doorbell.enter(preempt.cpu()) || task::work_pending() {
        doorbell.leave();
        return Entered::NotNow;
    }
    if state.inject(vm, vcpu, vmcs, window) {
        doorbell.leave();
        return Entered::NotNow;
    }
    state.flush(vmcs);
    tracing::entry(vcpu, vmcs);
    state.host.refresh(vmcs);
    fpu::sync();
    let xstate = state.guest_xstate(vm, vmcs);
    if let Some((own, of_guest)) = &xstate {
        // SAFETY: The guest's XCR0 was checked against what the host supports, and interrupts stay
        // off until the host's is back.
        unsafe { host::load_xstate(own, of_guest) };
    }
    if !state.entry_work.is_none() {
        state.do_entry_work(vmcs);
    }
    if guest::timing_enter() {
        state.follow_perf(vm, vmcs, &irqs);
    }

    let tags = Tags {
        root: vcpu.root(),
        vpid: vcpu.vpid(),
    };
    // SAFETY: `Owned::load` and `HostSwitch::to_guest` wrote this CPU's and task's host state, and
    // the controls come from the negotiation; `regs` belongs to the VMCS.
    let result = unsafe {
        vmx::run::run(
            vmcs,
            &irqs,
            &mut state.regs,
            &mut state.owed,
            vm.capabilities(),
            tags,
        )
    };

    if state.entry_work.lasts_until_exit() {
        state.undo_entry_work(vmcs);
    }
    // Before the vCPU is outside for others: who sees it there may rely on its log being empty.
    if state.logs_writes {
        if let Some(pml) = &state.pml {
            pml.drain(vmcs, |gpa| vm.memory().mark_dirty(gpa, vcpu.ring()));
            vcpu.check_ring();
        }
    }
    doorbell.leave();
    if let Some((own, of_guest)) = &xstate {
        // SAFETY: These are the values that the host had.
        unsafe { host::load_xstate(of_guest, own) };
    }
    let outcome = match result {
        Ok(reason) => {
            // CAST: The basic reason is the low half.
            vcpu.count_exit(usize::from(reason as u16));
            tracing::exit(vcpu, vmcs, reason);
            // Exceptions, external interrupts, and failures of the entry, which are negative.
            // CAST: The sign bit is the flag of a failed entry.
            if reason as i32 <= i32::from(exit::reason::EXTERNAL_INTERRUPT) {
                handle_with_irqs_off(vmcs, reason);
            }
            Entered::Exited(reason)
        }
        Err(error) => {
            vcpu.count_exit(usize::MAX);
            Entered::Failed(error)
        }
    };
    vmcs.lend(guest::interrupt_window_and_timing_exit);
    drop(irqs);
    outcome
}

/// Hands an exit to the host that is the host's, and that must be dealt with before interrupts are on:
/// an interrupt that was acknowledged, or a machine check.
#[cold]
#[inline(never)]
fn handle_with_irqs_off(vmcs: &CurrentVmcs<'_>, exit_reason: u32) {
    let is_machine_check = if exit_reason == u32::from(exit::reason::EXTERNAL_INTERRUPT) {
        let vector = exit::acknowledged_vector(vmcs);
        vmcs.lend(|| guest::handle_external_interrupt(vector));
        false
    } else if exit_reason & ENTRY_FAILURE == 0 {
        EventInfo::of_exit(vmcs).is_machine_check()
    } else {
        // CAST: The basic reason is the low half.
        exit_reason as u16 == exit::reason::ENTRY_MACHINE_CHECK
    };
    if is_machine_check {
        guest::handle_machine_check();
    }
}

impl Owned {
    /// Has the processor log the pages that the guest writes as long as a slot wants it.
    fn follow_dirty_logging(&mut self, vm: &Vm, vcpu: &Vcpu) {
        let on = self.state.pml.is_some() && vm.mmu().logs_writes();
        self.with_vmcs(|vmcs, state| {
            if state.logs_writes != on {
                state.logs_writes = on;
                reset::set_secondary(vm.hypervisor(), vmcs, state, vcpu.vpid().is_some());
            }
        });
    }
}

impl State {
    /// Has the next entry switch what perf wants.
    #[cold]
    #[inline(never)]
    fn follow_perf(&mut self, vm: &Vm, vmcs: &CurrentVmcs<'_>, irqs: &IrqGuard) {
        if let Some(perf) = &mut self.perf {
            let controls = vm.capabilities().perf_global_ctrl();
            perf.follow(vmcs, guest::perf_msrs(irqs), controls);
        }
    }

    /// Returns the host's and the guest's XCR0 and IA32_XSS if the guest runs with others than the host.
    #[inline]
    fn guest_xstate(&self, vm: &Vm, vmcs: &CurrentVmcs<'_>) -> Option<(Xstate, Xstate)> {
        if self.xcr0.value() == vm.host().xcr0_kept {
            return None;
        }
        // The VMM owns OSXSAVE: the guest's is in the shadow.
        if vmcs.read(field::CR4_READ_SHADOW).0 & Cr4::OSXSAVE.value() == 0 {
            return None;
        }
        let own = Xstate {
            xcr0: vm.host().xcr0,
            xss: vm.host().xss,
        };
        let of_guest = Xstate {
            xcr0: self.xcr0.value(),
            // No guest has any supervisor component.
            xss: if self.features.has(Feature::XSAVES) {
                0
            } else {
                own.xss
            },
        };
        Some((own, of_guest))
    }

    /// Returns whether the guest could take an interrupt of the client's own interrupt controller now.
    pub(crate) fn takes_client_interrupt(&mut self, vmcs: &CurrentVmcs<'_>) -> bool {
        self.events.interrupt.is_none()
            && self.events.interrupted.is_none()
            && self.events.exception.is_none()
            && self.takes_interrupts(vmcs)
    }
}
