// SPDX-License-Identifier: GPL-2.0

//! The registers of a virtio device, version 2 of "virtio over MMIO", and its events.

use std::os::fd::RawFd;

use anyhow::Context;
use anyhow::Result;
use event_manager::EventOps;
use event_manager::EventSet;
use event_manager::Events;
use event_manager::MutEventSubscriber;
use kvm_ioctls::IoEventAddress;
use kvm_ioctls::VmFd;
use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_DRIVER_OK;
use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_mmio::*;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::Queue;
use virtio_queue::QueueT;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::eventfd::EFD_NONBLOCK;

use crate::devices::Registers;

/// Reads as the bytes `virt`.
const MAGIC: u32 = u32::from_le_bytes(*b"virt");

/// The version of the registers that has no legacy.
const VERSION: u32 = 2;

/// Whoever wrote the device: nobody with a number.
const VENDOR: u32 = 0;

/// Descriptors of a queue, at most.
const QUEUE_SIZE: u16 = 256;

/// What a kind of device is and does.
pub trait Device: Send {
    /// Its number in the virtio standard.
    const ID: u32;

    /// How many queues it has.
    const QUEUES: usize;

    /// Returns the features that it offers, as a mask of bits.
    fn features(&self) -> u64;

    /// Returns its configuration, as the driver sees it.
    fn config(&self) -> &[u8];

    /// Serves queue number `index`, until nothing more can be done with it.
    fn serve(&mut self, index: usize, queue: &mut Queue, memory: &GuestMemoryMmap) -> Result<()>;

    /// Returns a file that lets a queue go on when it becomes readable, and the queue's number.
    fn source(&self) -> Option<(RawFd, usize)> {
        None
    }
}

/// A device with its registers.
pub struct Mmio<D> {
    device: D,
    memory: GuestMemoryMmap,
    queues: Vec<Queue>,
    /// One for each queue: signalled when the driver notifies it.
    notifications: Vec<EventFd>,
    /// Raises the interrupt line.
    interrupt: EventFd,
    /// Why the interrupt line was raised.
    interrupt_status: u32,
    /// What the driver says that it has come to.
    status: u32,
    /// Features that the driver has taken.
    driver_features: u64,
    /// Which half of the features the feature registers show.
    features_half: (u32, u32),
    /// Which queue the queue registers show.
    selected: u32,
}

impl<D: Device> Mmio<D> {
    /// Puts `device` at `address` of `vm`, on interrupt line `line`.
    pub fn new(
        device: D,
        vm: &VmFd,
        memory: &GuestMemoryMmap,
        address: u64,
        line: u32,
    ) -> Result<Self> {
        let this = Self::detached(device, memory)?;
        vm.register_irqfd(&this.interrupt, line)
            .with_context(|| format!("cannot wire interrupt {line} to a virtio device"))?;
        let register = IoEventAddress::Mmio(address + u64::from(VIRTIO_MMIO_QUEUE_NOTIFY));
        for (index, event) in (0u32..).zip(&this.notifications) {
            vm.register_ioevent(event, &register, index)
                .context("cannot have a virtio queue's notifications as events")?;
        }
        Ok(this)
    }

    /// Creates a device that no machine knows of.
    fn detached(device: D, memory: &GuestMemoryMmap) -> Result<Self> {
        let event = || EventFd::new(EFD_NONBLOCK).context("cannot create an eventfd");
        let queues = (0..D::QUEUES).map(|_| Queue::new(QUEUE_SIZE));
        Ok(Self {
            device,
            memory: memory.clone(),
            queues: queues.collect::<Result<_, _>>()?,
            notifications: (0..D::QUEUES).map(|_| event()).collect::<Result<_>>()?,
            interrupt: event()?,
            interrupt_status: 0,
            status: 0,
            driver_features: 0,
            features_half: (0, 0),
            selected: 0,
        })
    }

    /// Returns the features that the device and its queues offer.
    fn features(&self) -> u64 {
        self.device.features() | (1 << VIRTIO_F_VERSION_1) | (1 << VIRTIO_RING_F_EVENT_IDX)
    }

    /// Returns the value of a register of 32 bits.
    fn read_register(&self, offset: u32) -> u32 {
        match offset {
            VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            VIRTIO_MMIO_VERSION => VERSION,
            VIRTIO_MMIO_DEVICE_ID => D::ID,
            VIRTIO_MMIO_VENDOR_ID => VENDOR,
            VIRTIO_MMIO_DEVICE_FEATURES => match self.features_half.0 {
                0 => self.features() as u32,
                1 => (self.features() >> 32) as u32,
                _ => 0,
            },
            VIRTIO_MMIO_QUEUE_NUM_MAX => self.queue().map_or(0, |queue| queue.max_size().into()),
            VIRTIO_MMIO_QUEUE_READY => self.queue().map_or(0, |queue| queue.ready().into()),
            VIRTIO_MMIO_INTERRUPT_STATUS => self.interrupt_status,
            VIRTIO_MMIO_STATUS => self.status,
            // The configuration never changes.
            VIRTIO_MMIO_CONFIG_GENERATION => 0,
            _ => 0,
        }
    }

    /// Sets a register of 32 bits.
    fn write_register(&mut self, offset: u32, value: u32) {
        match offset {
            VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.features_half.0 = value,
            VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.features_half.1 = value,
            VIRTIO_MMIO_DRIVER_FEATURES => self.take_features(value),
            VIRTIO_MMIO_QUEUE_SEL => self.selected = value,
            // The event is there for those who write the number in a way that KVM does not match.
            VIRTIO_MMIO_QUEUE_NOTIFY => self.notify(value),
            VIRTIO_MMIO_INTERRUPT_ACK => self.interrupt_status &= !value,
            VIRTIO_MMIO_STATUS if value == 0 => self.reset(),
            VIRTIO_MMIO_STATUS => self.set_status(value),
            _ => self.write_queue_register(offset, value),
        }
    }

    /// Sets a register of the selected queue.
    fn write_queue_register(&mut self, offset: u32, value: u32) {
        let running = self.is_running();
        let Some(queue) = self.queue_mut().filter(|_| !running) else {
            return;
        };
        match offset {
            // A size that the queue cannot have leaves it as it is.
            VIRTIO_MMIO_QUEUE_NUM => queue.set_size(u16::try_from(value).unwrap_or(0)),
            VIRTIO_MMIO_QUEUE_READY => queue.set_ready(value == 1),
            VIRTIO_MMIO_QUEUE_DESC_LOW => queue.set_desc_table_address(Some(value), None),
            VIRTIO_MMIO_QUEUE_DESC_HIGH => queue.set_desc_table_address(None, Some(value)),
            VIRTIO_MMIO_QUEUE_AVAIL_LOW => queue.set_avail_ring_address(Some(value), None),
            VIRTIO_MMIO_QUEUE_AVAIL_HIGH => queue.set_avail_ring_address(None, Some(value)),
            VIRTIO_MMIO_QUEUE_USED_LOW => queue.set_used_ring_address(Some(value), None),
            VIRTIO_MMIO_QUEUE_USED_HIGH => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }

    /// Returns the queue that the queue registers show.
    fn queue(&self) -> Option<&Queue> {
        self.queues.get(usize::try_from(self.selected).ok()?)
    }

    /// Returns the queue that the queue registers show, to be changed.
    fn queue_mut(&mut self) -> Option<&mut Queue> {
        self.queues.get_mut(usize::try_from(self.selected).ok()?)
    }

    /// Sets one half of the features that the driver takes.
    fn take_features(&mut self, value: u32) {
        let (shift, kept) = match self.features_half.1 {
            0 => (0, self.driver_features & !u64::from(u32::MAX)),
            1 => (32, self.driver_features & u64::from(u32::MAX)),
            _ => return,
        };
        self.driver_features = kept | (u64::from(value) << shift);
    }

    /// Puts the device into its first state.
    fn reset(&mut self) {
        self.queues.iter_mut().for_each(QueueT::reset);
        self.interrupt_status = 0;
        self.status = 0;
        self.driver_features = 0;
        self.features_half = (0, 0);
        self.selected = 0;
    }

    /// Takes the driver's new state.
    fn set_status(&mut self, value: u32) {
        // Only a reset clears it.
        self.status = value | (self.status & VIRTIO_CONFIG_S_NEEDS_RESET);
        if self.is_running() {
            let event_idx = self.driver_features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0;
            for queue in &mut self.queues {
                queue.set_event_idx(event_idx);
            }
        }
    }

    /// Returns true between the driver's last step of setup and the device's end.
    fn is_running(&self) -> bool {
        self.status & (VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET)
            == VIRTIO_CONFIG_S_DRIVER_OK
    }

    /// Passes a notification on to the thread that serves the devices.
    fn notify(&self, queue: u32) {
        let queue = usize::try_from(queue).ok();
        if let Some(event) = queue.and_then(|queue| self.notifications.get(queue)) {
            // Fails only if nobody has read 2^64 of these, and then it is readable.
            let _ = event.write(1);
        }
    }

    /// Serves a queue, and tells the driver what it wants to know of it.
    fn serve(&mut self, index: usize) {
        if !self.is_running() {
            return;
        }
        let Some(queue) = self.queues.get_mut(index).filter(|queue| queue.ready()) else {
            return;
        };
        let before = queue.next_used();
        let served = self
            .device
            .serve(index, queue, &self.memory)
            .and_then(|()| {
                Ok(queue.next_used() != before && queue.needs_notification(&self.memory)?)
            });
        match served {
            Ok(false) => {}
            Ok(true) => self.raise(VIRTIO_MMIO_INT_VRING),
            Err(error) => {
                eprintln!("vmm: virtio device {} stops: {error:#}", D::ID);
                self.status |= VIRTIO_CONFIG_S_NEEDS_RESET;
                self.raise(VIRTIO_MMIO_INT_CONFIG);
            }
        }
    }

    /// Raises the interrupt line because of `reason`.
    fn raise(&mut self, reason: u32) {
        self.interrupt_status |= reason;
        // Fails only if nobody has read 2^64 of these, and then the interrupt is raised.
        let _ = self.interrupt.write(1);
    }
}

impl<D: Device> Registers for Mmio<D> {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let config = offset.checked_sub(VIRTIO_MMIO_CONFIG.into());
        match (config, u32::try_from(offset)) {
            (Some(start), _) => {
                let bytes = self.device.config();
                let bytes = usize::try_from(start).ok().and_then(|at| bytes.get(at..));
                let bytes = bytes.unwrap_or_default();
                data.iter_mut()
                    .zip(bytes)
                    .for_each(|(to, &from)| *to = from);
            }
            (None, Ok(offset)) => {
                if let Ok(data) = <&mut [u8; 4]>::try_from(data) {
                    *data = self.read_register(offset).to_le_bytes();
                }
            }
            (None, Err(_)) => {}
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let (Ok(offset), Ok(data)) = (u32::try_from(offset), data.try_into()) {
            self.write_register(offset, u32::from_le_bytes(data));
        }
    }
}

impl<D: Device> MutEventSubscriber for Mmio<D> {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        let mut add = |event: Events| {
            if let Err(error) = ops.add(event) {
                eprintln!("vmm: virtio device {} has no events: {error}", D::ID);
            }
        };
        for (index, event) in (0..).zip(&self.notifications) {
            add(Events::with_data(event, index, EventSet::IN));
        }
        if let Some((file, index)) = self.device.source() {
            // By edges, as what is readable must wait while the driver gives no room for it.
            let set = EventSet::IN | EventSet::EDGE_TRIGGERED;
            add(Events::with_data_raw(file, index as u32, set));
        }
    }

    fn process(&mut self, events: Events, _ops: &mut EventOps<'_>) {
        let index = events.data() as usize;
        if let Some(event) = self.notifications.get(index) {
            // Fails where it is the source that is readable.
            let _ = event.read();
        }
        self.serve(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use virtio_bindings::virtio_ring::VRING_DESC_F_WRITE;
    use virtio_queue::desc::split::Descriptor;
    use virtio_queue::desc::RawDescriptor;
    use virtio_queue::mock::MockSplitQueue;
    use virtio_queue::QueueOwnedT;
    use vm_memory::Bytes;
    use vm_memory::GuestAddress;

    /// Uses every chain, and fails at one that is empty.
    struct Sink;

    impl Device for Sink {
        const ID: u32 = 42;
        const QUEUES: usize = 1;

        fn features(&self) -> u64 {
            1 << 3
        }

        fn config(&self) -> &[u8] {
            b"config"
        }

        fn serve(&mut self, _: usize, queue: &mut Queue, memory: &GuestMemoryMmap) -> Result<()> {
            let heads: Vec<_> = queue
                .iter(memory)?
                .map(|chain| chain.head_index())
                .collect();
            for head in heads {
                queue.add_used(memory, head, 1)?;
            }
            Ok(())
        }
    }

    fn read(device: &mut Mmio<Sink>, offset: u32) -> u32 {
        let mut data = [0xff; 4];
        device.read(offset.into(), &mut data);
        u32::from_le_bytes(data)
    }

    fn write(device: &mut Mmio<Sink>, offset: u32, value: u32) {
        device.write(offset.into(), &value.to_le_bytes());
    }

    fn memory() -> GuestMemoryMmap {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap()
    }

    /// Does what a driver does until the device runs, with its only queue at `queue`.
    fn start(device: &mut Mmio<Sink>, queue: &Queue) {
        write(device, VIRTIO_MMIO_STATUS, 0);
        write(device, VIRTIO_MMIO_STATUS, 3);
        write(device, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
        assert_eq!(read(device, VIRTIO_MMIO_DEVICE_FEATURES), 1);
        write(device, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
        write(device, VIRTIO_MMIO_DRIVER_FEATURES, 1);
        write(device, VIRTIO_MMIO_QUEUE_SEL, 0);
        assert_eq!(read(device, VIRTIO_MMIO_QUEUE_NUM_MAX), 256);
        write(device, VIRTIO_MMIO_QUEUE_NUM, queue.size().into());
        write(
            device,
            VIRTIO_MMIO_QUEUE_DESC_LOW,
            queue.desc_table() as u32,
        );
        write(
            device,
            VIRTIO_MMIO_QUEUE_AVAIL_LOW,
            queue.avail_ring() as u32,
        );
        write(device, VIRTIO_MMIO_QUEUE_USED_LOW, queue.used_ring() as u32);
        write(device, VIRTIO_MMIO_QUEUE_READY, 1);
        write(device, VIRTIO_MMIO_STATUS, 0xf);
    }

    #[test]
    fn tells_what_it_is() {
        let mut device = Mmio::detached(Sink, &memory()).unwrap();
        assert_eq!(read(&mut device, VIRTIO_MMIO_MAGIC_VALUE), 0x7472_6976);
        assert_eq!(read(&mut device, VIRTIO_MMIO_VERSION), 2);
        assert_eq!(read(&mut device, VIRTIO_MMIO_DEVICE_ID), 42);
        assert_eq!(
            read(&mut device, VIRTIO_MMIO_DEVICE_FEATURES),
            (1 << 29) | (1 << 3)
        );
        let mut config = [0xff; 4];
        device.read(0x104, &mut config);
        assert_eq!(config, *b"ig\0\0");
    }

    #[test]
    fn serves_its_queue_when_it_runs() {
        let memory = memory();
        let mut device = Mmio::detached(Sink, &memory).unwrap();
        let ring = MockSplitQueue::new(&memory, 16);
        let queue: Queue = ring.create_queue().unwrap();
        let flags = VRING_DESC_F_WRITE as u16;
        let chain = [RawDescriptor::from(Descriptor::new(0x8000, 16, flags, 0))];
        ring.build_desc_chain(&chain).unwrap();

        device.serve(0);
        assert_eq!(read(&mut device, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
        start(&mut device, &queue);
        device.serve(0);
        assert_eq!(read(&mut device, VIRTIO_MMIO_INTERRUPT_STATUS), 1);
        assert_eq!(device.interrupt.read().unwrap(), 1);
        write(&mut device, VIRTIO_MMIO_INTERRUPT_ACK, 1);
        assert_eq!(read(&mut device, VIRTIO_MMIO_INTERRUPT_STATUS), 0);

        device.serve(0);
        assert!(
            device.interrupt.read().is_err(),
            "nothing new, no interrupt"
        );
    }

    #[test]
    fn nonsense_stops_the_device_only() {
        let memory = memory();
        let mut device = Mmio::detached(Sink, &memory).unwrap();
        let ring = MockSplitQueue::new(&memory, 16);
        let queue: Queue = ring.create_queue().unwrap();
        start(&mut device, &queue);
        // More chains than the queue has descriptors.
        memory
            .write_obj(100u16, GuestAddress(queue.avail_ring() + 2))
            .unwrap();
        device.serve(0);
        let stopped = VIRTIO_CONFIG_S_NEEDS_RESET;
        assert_eq!(read(&mut device, VIRTIO_MMIO_STATUS) & stopped, stopped);
        write(&mut device, VIRTIO_MMIO_STATUS, 0xf);
        assert_eq!(read(&mut device, VIRTIO_MMIO_STATUS) & stopped, stopped);
        write(&mut device, VIRTIO_MMIO_STATUS, 0);
        assert_eq!(read(&mut device, VIRTIO_MMIO_STATUS), 0);
    }

    #[test]
    fn queues_do_not_change_while_they_are_in_use() {
        let memory = memory();
        let mut device = Mmio::detached(Sink, &memory).unwrap();
        let ring = MockSplitQueue::new(&memory, 16);
        start(&mut device, &ring.create_queue().unwrap());
        let before = device.queues[0].desc_table();
        write(&mut device, VIRTIO_MMIO_QUEUE_DESC_LOW, 0x4000);
        write(&mut device, VIRTIO_MMIO_QUEUE_SEL, 7);
        write(&mut device, VIRTIO_MMIO_QUEUE_READY, 1);
        assert_eq!(device.queues[0].desc_table(), before);
        assert_eq!(read(&mut device, VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
    }
}
