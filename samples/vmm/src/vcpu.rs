// SPDX-License-Identifier: GPL-2.0

//! One virtual CPU: CPUID, registers, and the loop around KVM_RUN.

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use anyhow::anyhow;
use anyhow::bail;
use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;
use kvm_bindings::kvm_cpuid_entry2;
use kvm_bindings::kvm_msr_entry;
use kvm_bindings::Msrs;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::Kvm;
use kvm_ioctls::VcpuExit;
use kvm_ioctls::VcpuFd;
use kvm_ioctls::VmFd;

use crate::boot::Entry;
use crate::devices::Devices;
use crate::devices::Next;
use crate::stats::Exits;
use crate::stats::Reason;
use crate::stats::Statistics;

/// CPUID.1:ECX: the CPU is a virtual one.
const HYPERVISOR: u32 = 1 << 31;

/// CPUID.1:EBX: where the initial APIC ID stands.
const INITIAL_APIC_ID_SHIFT: u32 = 24;

/// Why the guest came to its end.
#[derive(Debug, PartialEq)]
pub enum Stop {
    /// It halted with no interrupt to wake it.
    Halted,
    /// It wrote this status to the debug-exit port.
    Exited(u8),
    /// It reset the machine.
    Reset,
    /// The user or the end of the input wanted it to end.
    Quit,
}

/// One virtual CPU.
pub struct Vcpu {
    id: u8,
    fd: VcpuFd,
    exits: Exits,
}

impl Vcpu {
    /// Creates vCPU number `id` of `vm`, with every CPUID feature that KVM supports.
    pub fn new(kvm: &Kvm, vm: &VmFd, id: u8) -> Result<Self> {
        let fd = vm
            .create_vcpu(id.into())
            .with_context(|| format!("cannot create vCPU {id}"))?;

        let mut cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .context("cannot read the CPUID that KVM supports")?;
        for leaf in cpuid.as_mut_slice() {
            adapt_leaf(leaf, id);
        }
        fd.set_cpuid2(&cpuid)
            .with_context(|| format!("cannot set the CPUID of vCPU {id}"))?;

        Ok(Self {
            id,
            fd,
            exits: Exits::default(),
        })
    }

    /// Returns the vCPU's number, which is its APIC ID.
    pub fn id(&self) -> u8 {
        self.id
    }

    /// Sets the registers to those that `entry` asks for.
    pub fn start_at(&self, entry: &Entry) -> Result<()> {
        let mut sregs = self
            .fd
            .get_sregs()
            .context("cannot read the system registers")?;
        entry.set_sregs(&mut sregs);
        self.fd
            .set_sregs(&sregs)
            .context("cannot set the system registers")?;
        self.fd
            .set_regs(&entry.regs)
            .context("cannot set the general registers")
    }

    /// Sets model-specific registers, given as numbers and values.
    pub fn set_msrs(&self, msrs: &[(u32, u64)]) -> Result<()> {
        for &(index, data) in msrs {
            let entry = kvm_msr_entry {
                index,
                data,
                ..Default::default()
            };
            let set = self.fd.set_msrs(&Msrs::from_entries(&[entry])?);
            ensure!(matches!(set, Ok(1)), "cannot set MSR {index:#x}");
        }
        Ok(())
    }

    /// Returns what KVM counted for this vCPU, by name.
    pub fn statistics(&self) -> Result<Statistics> {
        Statistics::read(&self.fd)
    }

    /// Returns the exits counted so far.
    pub fn exits(&self) -> &Exits {
        &self.exits
    }

    /// Runs the guest to its end, or until `ending` is found set after a signal.
    ///
    /// # Errors
    ///
    /// Fails when a device does, when KVM cannot go on, and on a triple fault; the text then holds
    /// what KVM said and the registers.
    pub fn run(&mut self, devices: &Devices, ending: &AtomicBool) -> Result<Stop> {
        while !ending.load(Ordering::Acquire) {
            if let Some(stop) = self.run_once(devices)? {
                return Ok(stop);
            }
        }
        Ok(Stop::Quit)
    }

    /// Runs the guest to its next exit, serves that, and returns why it was the last, if it was.
    fn run_once(&mut self, devices: &Devices) -> Result<Option<Stop>> {
        let exit = match self.fd.run() {
            Ok(exit) => exit,
            // A signal to this thread, or the kernel's wish to start over.
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                self.exits.count(Reason::Interrupted);
                return Ok(None);
            }
            Err(error) => return Err(self.failed(&format!("KVM_RUN failed: {error}"))),
        };
        self.exits.count(Reason::of(&exit));

        let next = match exit {
            // KVM hands over all items of a string instruction in one slice. The devices on the
            // ports are one byte wide, so each byte is an access.
            VcpuExit::IoIn(port, data) => {
                data.iter_mut()
                    .for_each(|byte| *byte = devices.read_port(port));
                Next::Continue
            }
            VcpuExit::IoOut(port, data) => devices.write_port(port, data)?,
            VcpuExit::MmioRead(address, data) => {
                devices.read_memory(address, data);
                Next::Continue
            }
            VcpuExit::MmioWrite(address, data) => {
                devices.write_memory(address, data);
                Next::Continue
            }
            VcpuExit::Intr => Next::Continue,
            VcpuExit::Hlt => return Ok(Some(Stop::Halted)),
            VcpuExit::Shutdown => return Err(self.failed("the guest died of a triple fault")),
            VcpuExit::FailEntry(reason, cpu) => {
                let what = format!("the CPU refused to enter the guest: {reason:#x} on CPU {cpu}");
                return Err(self.failed(&what));
            }
            VcpuExit::InternalError => return Err(self.internal_error()),
            other => bail!("KVM exited for a reason that this program does not know: {other:?}"),
        };
        Ok(match next {
            Next::Continue => None,
            Next::Exit(status) => Some(Stop::Exited(status)),
            Next::Reset => Some(Stop::Reset),
        })
    }

    /// Returns an error that says `what` happened, and the registers at that point.
    fn failed(&self, what: &str) -> anyhow::Error {
        match self.registers() {
            Ok(registers) => anyhow!("{what}\n{registers}"),
            Err(error) => anyhow!("{what} (and {error:#})"),
        }
    }

    /// Returns the error of a KVM_EXIT_INTERNAL_ERROR.
    fn internal_error(&mut self) -> anyhow::Error {
        // SAFETY: The exit reason says that this member of the union is the valid one; all of it is
        // integers.
        let internal = unsafe { self.fd.get_kvm_run().__bindgen_anon_1.internal };
        let count = internal.data.len().min(internal.ndata as usize);
        let what = format!(
            "KVM gave up: internal error {}, data {:#x?}",
            internal.suberror,
            &internal.data[..count]
        );
        self.failed(&what)
    }

    /// Reads the registers that tell where the guest is.
    fn registers(&self) -> Result<Registers> {
        let regs = self.fd.get_regs().context("cannot read the registers")?;
        let sregs = self.fd.get_sregs().context("cannot read the registers")?;
        Ok(Registers(vec![
            vec![("rip", regs.rip), ("rflags", regs.rflags)],
            vec![("rax", regs.rax), ("rbx", regs.rbx)],
            vec![("rcx", regs.rcx), ("rdx", regs.rdx)],
            vec![("rsi", regs.rsi), ("rdi", regs.rdi)],
            vec![("rsp", regs.rsp), ("rbp", regs.rbp)],
            vec![("r8", regs.r8), ("r9", regs.r9)],
            vec![("r10", regs.r10), ("r11", regs.r11)],
            vec![("r12", regs.r12), ("r13", regs.r13)],
            vec![("r14", regs.r14), ("r15", regs.r15)],
            vec![("cr0", sregs.cr0), ("cr2", sregs.cr2)],
            vec![("cr3", sregs.cr3), ("cr4", sregs.cr4)],
            vec![("efer", sregs.efer), ("cs", sregs.cs.selector.into())],
        ]))
    }
}

/// Changes one leaf of the CPUID that KVM supports to what vCPU number `id` should see.
fn adapt_leaf(leaf: &mut kvm_cpuid_entry2, id: u8) {
    match leaf.function {
        1 => {
            leaf.ecx |= HYPERVISOR;
            leaf.ebx &= !(0xff << INITIAL_APIC_ID_SHIFT);
            leaf.ebx |= u32::from(id) << INITIAL_APIC_ID_SHIFT;
        }
        // Extended topology: EDX is the x2APIC ID.
        0xb | 0x1f => leaf.edx = id.into(),
        _ => {}
    }
}

/// Registers by name, in the rows in which to print them.
struct Registers(Vec<Vec<(&'static str, u64)>>);

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, row) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            for (name, value) in row {
                write!(f, "  {name:>6} {value:016x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaf_1_has_the_id_and_tells_of_the_hypervisor() {
        let mut leaf = kvm_cpuid_entry2 {
            function: 1,
            ebx: 0x0710_0800,
            ..Default::default()
        };
        adapt_leaf(&mut leaf, 3);
        assert_eq!(leaf.ebx, 0x0310_0800);
        assert_eq!(leaf.ecx, HYPERVISOR);
    }

    #[test]
    fn registers_stand_in_rows() {
        let registers = Registers(vec![vec![("a", 1), ("b", 2)], vec![("c", 3)]]);
        let text = registers.to_string();
        assert_eq!(text.lines().count(), 2);
        assert!(text.starts_with("       a 0000000000000001       b 00"));
    }
}
