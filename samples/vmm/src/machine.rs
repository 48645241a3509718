// SPDX-License-Identifier: GPL-2.0

//! One virtual machine: what it has, the threads that run it, and its end.
//!
//! Each vCPU has a thread, which enters the guest and serves its accesses to registers of devices.
//! The thread that calls [`Machine::run`] serves everything else as events: input for the serial
//! port, the queues of virtio devices, and the end, which any thread may call for through an
//! [`Ender`].
//!
//! The guest gets KVM's own interrupt controllers and timer, so that interrupts, IPIs, HLT and the task
//! priority are served in the kernel or by the CPU.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::anyhow;
use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;
use event_manager::EventManager;
use event_manager::EventOps;
use event_manager::EventSet;
use event_manager::Events;
use event_manager::MutEventSubscriber;
use event_manager::SubscriberOps;
use kvm_bindings::kvm_pit_config;
use kvm_bindings::KVM_API_VERSION;
use kvm_bindings::KVM_PIT_SPEAKER_DUMMY;
use kvm_ioctls::Cap;
use kvm_ioctls::Kvm;
use kvm_ioctls::VmFd;
use linux_loader::cmdline::Cmdline;
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::eventfd::EFD_NONBLOCK;
use vmm_sys_util::signal::register_signal_handler;
use vmm_sys_util::signal::Killable;
use vmm_sys_util::signal::SIGRTMIN;

use crate::boot;
use crate::boot::linux::Boot;
use crate::boot::Kind;
use crate::console;
use crate::console::Input;
use crate::console::Prompt;
use crate::devices::lock;
use crate::devices::serial;
use crate::devices::serial::Serial;
use crate::devices::Devices;
use crate::devices::Registers;
use crate::devices::VIRTIO;
use crate::devices::VIRTIO_SIZE;
use crate::memory::Memory;
use crate::memory::IDENTITY_MAP;
use crate::memory::KVM_TSS;
use crate::options::Linux;
use crate::options::Options;
use crate::stats::Exits;
use crate::stats::Statistics;
use crate::vcpu::Stop;
use crate::vcpu::Vcpu;
use crate::virtio::Block;
use crate::virtio::Mmio;
use crate::virtio::Net;

/// Interrupt line of the first virtio device.
const VIRTIO_INTERRUPT: u32 = 5;

/// How long a vCPU thread may take to notice that it is to end, before it is told again.
const ENOUGH: Duration = Duration::from_millis(1);

/// Something that waits for events.
type Subscriber = Arc<Mutex<dyn MutEventSubscriber>>;

/// A virtual machine.
pub struct Machine {
    vcpus: Vec<Vcpu>,
    devices: Arc<Devices>,
    events: EventManager<Subscriber>,
    ender: Ender,
    ended: mpsc::Receiver<Result<Stop>>,
    // Last, so that it is dropped after the machine that uses it.
    _vm: VmFd,
    _memory: Memory,
}

impl Machine {
    /// Creates the machine that `options` describe, with the guest loaded.
    pub fn new(options: &Options) -> Result<Self> {
        let kind = Kind::of(&options.guest)?;
        let kvm = open(&options.device)?;
        let vm = kvm.create_vm().context("cannot create a virtual machine")?;
        let memory = Memory::new(options.memory, options.pages)?;
        memory.register(&vm)?;

        let (ender, ended) = Ender::new()?;
        let mut events = EventManager::<Subscriber>::new()
            .map_err(|error| anyhow!("cannot wait for events: {error}"))?;
        events.add_subscriber(Arc::new(Mutex::new(ender.clone())));

        let prompt = options
            .linux
            .prompt
            .as_deref()
            .map(Prompt::new)
            .transpose()?;
        let prompt = prompt.map(Arc::new);
        let serial = Arc::new(Mutex::new(Serial::new(console::output(prompt.clone()))?));
        let mut parts = Parts {
            vm: &vm,
            memory: &memory,
            devices: Devices::new(serial.clone()),
            events: &mut events,
        };
        create_interrupt_controllers(&vm)?;
        let (cpus, entry) = match kind {
            Kind::Elf => {
                let nothing_else = options.linux == Linux::default();
                ensure!(
                    nothing_else,
                    "an ELF guest has one vCPU and no devices of Linux"
                );
                (1, boot::load_elf(memory.guest(), &options.guest)?)
            }
            Kind::BzImage => {
                vm.register_irqfd(lock(&serial).interrupt(), serial::INTERRUPT)
                    .context("cannot wire the serial port's interrupt")?;
                let input = Input::new(serial, prompt, ender.clone())?;
                parts.events.add_subscriber(Arc::new(Mutex::new(input)));
                let line = parts.add_virtio(&options.linux)?;
                let boot = Boot {
                    kernel: &options.guest,
                    initrd: options.linux.initrd.as_deref(),
                    cpus: options.linux.cpus,
                };
                let entry = boot::linux::load(memory.guest(), &boot, &line)?;
                (options.linux.cpus, entry)
            }
        };
        let devices = Arc::new(parts.devices);

        let vcpus = (0..cpus)
            .map(|id| Vcpu::new(&kvm, &vm, id))
            .collect::<Result<Vec<_>>>()?;
        for vcpu in &vcpus {
            vcpu.set_msrs(entry.msrs)?;
        }
        // The others wait until this one starts them.
        if let Some(first) = vcpus.first() {
            first.start_at(&entry)?;
        }
        Ok(Self {
            vcpus,
            devices,
            events,
            ender,
            ended,
            _vm: vm,
            _memory: memory,
        })
    }

    /// Runs the guest to its end.
    pub fn run(&mut self) -> Result<Stop> {
        let ending = Arc::new(AtomicBool::new(false));
        register_signal_handler(SIGRTMIN(), wake_up).context("cannot have a signal")?;
        let mut threads = Vec::new();
        for vcpu in self.vcpus.drain(..) {
            threads.push(start(vcpu, &self.devices, &ending, &self.ender)?);
        }

        let stop = loop {
            if let Ok(stop) = self.ended.try_recv() {
                break stop;
            }
            if let Err(error) = self.events.run() {
                break Err(anyhow!("cannot wait for events: {error}"));
            }
        };

        ending.store(true, Ordering::Release);
        for thread in threads {
            self.vcpus.push(join(thread)?);
        }
        stop
    }

    /// Returns the exits of all vCPUs to user space.
    pub fn exits(&self) -> Exits {
        let mut exits = Exits::default();
        self.vcpus.iter().for_each(|vcpu| exits.add(vcpu.exits()));
        exits
    }

    /// Returns what KVM counted for all vCPUs.
    pub fn statistics(&self) -> Result<Statistics> {
        let mut statistics = Statistics::default();
        for vcpu in &self.vcpus {
            statistics.add(&vcpu.statistics()?);
        }
        Ok(statistics)
    }
}

/// What a machine is put together from.
struct Parts<'a> {
    vm: &'a VmFd,
    memory: &'a Memory,
    devices: Devices,
    events: &'a mut EventManager<Subscriber>,
}

impl Parts<'_> {
    /// Adds the virtio devices of `options`; returns a kernel command line that names them.
    fn add_virtio(&mut self, options: &Linux) -> Result<Cmdline> {
        let mut line = boot::linux::command_line()?;
        let mut address = VIRTIO;
        let mut interrupt = VIRTIO_INTERRUPT;
        if let Some(path) = &options.block {
            let disk = Mmio::new(
                Block::open(path)?,
                self.vm,
                self.memory.guest(),
                address,
                interrupt,
            )?;
            self.add(disk);
            line.add_virtio_mmio_device(VIRTIO_SIZE, GuestAddress(address), interrupt, None)?;
            address += VIRTIO_SIZE;
            interrupt += 1;
        }
        if let Some(name) = &options.net {
            let card = Mmio::new(
                Net::open(name)?,
                self.vm,
                self.memory.guest(),
                address,
                interrupt,
            )?;
            self.add(card);
            line.add_virtio_mmio_device(VIRTIO_SIZE, GuestAddress(address), interrupt, None)?;
        }
        if let Some(words) = &options.append {
            line.insert_str(words)
                .with_context(|| format!("'{words}' cannot be on the kernel's command line"))?;
        }
        Ok(line)
    }

    /// Adds a device with its registers and events.
    fn add<D: Registers + MutEventSubscriber + 'static>(&mut self, device: D) {
        let device = Arc::new(Mutex::new(device));
        self.devices.add_virtio(device.clone());
        self.events.add_subscriber(device);
    }
}

/// Opens the KVM device, and refuses one that does not speak this program's ABI.
fn open(device: &Path) -> Result<Kvm> {
    let name = device.display();
    let path = CString::new(device.as_os_str().as_bytes())
        .with_context(|| format!("{name}: a path has no NUL byte"))?;
    let kvm = Kvm::new_with_path(&path)
        .with_context(|| format!("cannot open {name} (is the module loaded?)"))?;

    let version = kvm.get_api_version();
    ensure!(version >= 0, "{name} is no KVM device");
    ensure!(
        version == KVM_API_VERSION as i32,
        "{name} answers KVM API version {version}, not {KVM_API_VERSION}"
    );
    for cap in [Cap::UserMemory, Cap::ExtCpuid] {
        ensure!(
            kvm.check_extension(cap),
            "{name} lacks the capability {cap:?}"
        );
    }
    Ok(kvm)
}

/// Gives `vm` PICs, I/O APIC, local APICs and a timer, all in KVM; and addresses that KVM needs for
/// guests in real mode, where the CPU cannot run these.
fn create_interrupt_controllers(vm: &VmFd) -> Result<()> {
    vm.set_identity_map_address(IDENTITY_MAP.0)
        .context("cannot set the address of KVM's page table")?;
    vm.set_tss_address(KVM_TSS.0 as usize)
        .context("cannot set the address of KVM's TSS")?;
    vm.create_irq_chip()
        .context("cannot create interrupt controllers")?;
    // A guest that has the TSC-deadline timer can do without.
    if !vm.check_extension(Cap::Pit2) {
        return Ok(());
    }
    vm.create_pit2(kvm_pit_config {
        flags: KVM_PIT_SPEAKER_DUMMY,
        ..Default::default()
    })
    .context("cannot create a timer")
}

/// Starts a thread that runs `vcpu`; it returns it at the end.
fn start(
    mut vcpu: Vcpu,
    devices: &Arc<Devices>,
    ending: &Arc<AtomicBool>,
    ender: &Ender,
) -> Result<JoinHandle<Vcpu>> {
    let (devices, ending, ender) = (devices.clone(), ending.clone(), ender.clone());
    thread::Builder::new()
        .name(format!("vcpu {}", vcpu.id()))
        .spawn(move || {
            ender.end(vcpu.run(&devices, &ending));
            vcpu
        })
        .context("cannot start a thread for a vCPU")
}

/// Waits for a vCPU's thread, which has been told to end.
fn join(thread: JoinHandle<Vcpu>) -> Result<Vcpu> {
    // A signal gets it out of KVM_RUN. One that comes between its look at the flag and KVM_RUN
    // does not, so there are more of them.
    while !thread.is_finished() {
        thread.kill(SIGRTMIN()).context("cannot signal a vCPU")?;
        thread::sleep(ENOUGH);
    }
    thread.join().map_err(|_| anyhow!("a vCPU's thread died"))
}

/// The signal's only work is to interrupt KVM_RUN.
extern "C" fn wake_up(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Ends the machine, from any thread; the first call counts.
pub struct Ender {
    outcome: mpsc::Sender<Result<Stop>>,
    event: Arc<EventFd>,
}

impl Clone for Ender {
    fn clone(&self) -> Self {
        Self {
            outcome: self.outcome.clone(),
            event: self.event.clone(),
        }
    }
}

impl Ender {
    /// Returns an ender, and where the outcomes arrive.
    fn new() -> Result<(Self, mpsc::Receiver<Result<Stop>>)> {
        let event = EventFd::new(EFD_NONBLOCK).context("cannot create an eventfd")?;
        let (outcome, outcomes) = mpsc::channel();
        let event = Arc::new(event);
        Ok((Self { outcome, event }, outcomes))
    }

    /// Ends the machine with this outcome.
    pub fn end(&self, outcome: Result<Stop>) {
        // Both fail only when the machine is no longer waiting.
        let _ = self.outcome.send(outcome);
        let _ = self.event.write(1);
    }
}

impl MutEventSubscriber for Ender {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::new(&*self.event, EventSet::IN)) {
            self.end(Err(anyhow!("cannot wait for the end: {error}")));
        }
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        // The outcome is in the channel, where `run` looks after each event.
        let _ = self.event.read();
    }
}
