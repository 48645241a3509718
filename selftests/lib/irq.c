// SPDX-License-Identifier: GPL-2.0
/* See irq.h. */
#include "irq.h"

#include <sched.h>
#include <signal.h>
#include <time.h>

GUEST_CODE(irq_guest_halt, 64,
	"	movl $0xfee000f0, %edi\n"
	"	movl $0x1ff, (%rdi)\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"1:	sti\n"
	"	hlt\n"
	"	jmp 1b\n");

int vm_split_irqchip(struct vm *vm, unsigned int pins)
{
	struct kvm_enable_cap split = {
		.cap = KVM_CAP_SPLIT_IRQCHIP,
		.args = { pins },
	};

	return try_ioctl(vm->fd, KVM_ENABLE_CAP, (unsigned long)&split);
}

int vm_create_irqchip(struct vm *vm)
{
	return try_ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0);
}

void irq_set_gate(struct vm *vm, unsigned int vector, uint64_t target)
{
	volatile uint64_t *gate = vm_u64(vm, IDT_GPA + vector * 16);

	gate[0] = (target & 0xffff) | (uint64_t)SEL_CODE64 << 16 | 0x8e00ULL << 32 |
		  (target & 0xffff0000) << 32;
	gate[1] = target >> 32;
}

void irq_install_handlers(struct vm *vm)
{
	unsigned int vector;

	for (vector = IRQ_FIRST_VECTOR; vector < 256; vector++) {
		uint64_t gpa = IRQ_STUBS_GPA + vector * 32;
		/* incq counter; movl %eax, EOI (whatever is written); iretq */
		unsigned char code[] = {
			0x48, 0xff, 0x04, 0x25, 0, 0, 0, 0,
			0xa3, 0xb0, 0x00, 0xe0, 0xfe, 0, 0, 0, 0,
			0x48, 0xcf,
		};
		uint32_t counter = IRQ_COUNTERS_GPA + vector * 8;

		memcpy(code + 4, &counter, 4);
		memcpy(vm->mem + gpa, code, sizeof(code));
		irq_set_gate(vm, vector, gpa);
	}
}

static unsigned char *append(unsigned char *at, const void *code, size_t size)
{
	memcpy(at, code, size);
	return at + size;
}

#define APPEND(at, ...)	({						\
	const unsigned char code[] = { __VA_ARGS__ };			\
	append(at, code, sizeof(code));					\
})

/* incq counter of the vector */
static unsigned char *count(unsigned char *at, unsigned int vector)
{
	uint32_t counter = IRQ_COUNTERS_GPA + vector * 8;

	at = APPEND(at, 0x48, 0xff, 0x04, 0x25);
	return append(at, &counter, 4);
}

void irq_install_pic_handlers(struct vm *vm)
{
	unsigned int vector;

	for (vector = 0x20; vector < 0x30; vector++) {
		uint64_t gpa = IRQ_STUBS_GPA + vector * 32;
		unsigned char *at = count((unsigned char *)vm->mem + gpa, vector);

		/* pushq %rax; movb $0x20, %al; outb to 0xa0 and 0x20; popq %rax; iretq */
		at = APPEND(at, 0x50, 0xb0, 0x20);
		if (vector >= 0x28)
			at = APPEND(at, 0xe6, 0xa0);
		APPEND(at, 0xe6, 0x20, 0x58, 0x48, 0xcf);
		irq_set_gate(vm, vector, gpa);
	}
}

void irq_install_telling_handler(struct vm *vm, unsigned int vector)
{
	uint64_t gpa = IRQ_STUBS_GPA + vector * 32;
	unsigned char *at = count((unsigned char *)vm->mem + gpa, vector);

	/* movb $vector, %al; outb; movl %eax, EOI; iretq */
	at = APPEND(at, 0xb0, vector, 0xe6, PORT_SYNC);
	APPEND(at, 0xa3, 0xb0, 0x00, 0xe0, 0xfe, 0, 0, 0, 0, 0x48, 0xcf);
	irq_set_gate(vm, vector, gpa);
}

void irq_get_chip(struct vm *vm, unsigned int id, struct kvm_irqchip *chip)
{
	memset(chip, 0, sizeof(*chip));
	chip->chip_id = id;
	xioctl(vm->fd, KVM_GET_IRQCHIP, chip);
}

void irq_set_chip(struct vm *vm, const struct kvm_irqchip *chip)
{
	xioctl(vm->fd, KVM_SET_IRQCHIP, chip);
}

uint64_t irq_get_entry(struct vm *vm, unsigned int pin)
{
	struct kvm_irqchip chip;

	irq_get_chip(vm, KVM_IRQCHIP_IOAPIC, &chip);
	return chip.chip.ioapic.redirtbl[pin].bits;
}

uint64_t irq_set_entry(struct vm *vm, unsigned int pin, uint64_t entry)
{
	struct kvm_irqchip chip;
	uint64_t old;

	irq_get_chip(vm, KVM_IRQCHIP_IOAPIC, &chip);
	old = chip.chip.ioapic.redirtbl[pin].bits;
	chip.chip.ioapic.redirtbl[pin].bits = entry;
	irq_set_chip(vm, &chip);
	return old;
}

void irq_add_vcpu(struct vcpu *vcpu, struct vm *vm, unsigned int id, uint64_t stack)
{
	struct kvm_mp_state runnable = { .mp_state = KVM_MP_STATE_RUNNABLE };
	struct kvm_regs regs;

	vcpu_create(vcpu, vm, id);
	vcpu_set_supported_cpuid(vcpu);
	vcpu_set_mode(vcpu, MODE_LONG);
	irq_load_idt(vcpu);
	regs = vcpu_regs(vcpu);
	regs.rsp = stack;
	vcpu_set_regs(vcpu, &regs);
	xioctl(vcpu->fd, KVM_SET_MP_STATE, &runnable);
}

void irq_load_idt(struct vcpu *vcpu)
{
	struct kvm_sregs sregs = vcpu_sregs(vcpu);

	sregs.idt.base = IDT_GPA;
	sregs.idt.limit = 0xfff;
	vcpu_set_sregs(vcpu, &sregs);
}

bool irq_wait_for(volatile uint64_t *word, uint64_t value)
{
	int spins;

	for (spins = 0; *word != value && spins < 20000; spins++)
		usleep(100);
	return *word == value;
}

struct kvm_irq_routing_entry irq_msi_route(unsigned int gsi, unsigned int destination,
					   unsigned int data)
{
	return (struct kvm_irq_routing_entry) {
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_MSI,
		.u.msi.address_lo = APIC_GPA | destination << 12,
		.u.msi.data = data,
	};
}

struct kvm_irq_routing_entry irq_pin_route(unsigned int gsi, unsigned int chip,
					   unsigned int pin)
{
	return (struct kvm_irq_routing_entry) {
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip.irqchip = chip,
		.u.irqchip.pin = pin,
	};
}

int irq_set_routes(struct vm *vm, const struct kvm_irq_routing_entry *entries,
		   unsigned int count)
{
	struct kvm_irq_routing *routing;
	int ret;

	routing = calloc(1, sizeof(*routing) + count * sizeof(*entries));
	if (!routing)
		die("no memory");
	routing->nr = count;
	memcpy(routing->entries, entries, count * sizeof(*entries));
	ret = try_ioctl(vm->fd, KVM_SET_GSI_ROUTING, (unsigned long)routing);
	free(routing);
	return ret;
}

int irq_line(struct vm *vm, unsigned int gsi, int level)
{
	struct kvm_irq_level line = { .irq = gsi, .level = level };
	int ret = try_ioctl(vm->fd, KVM_IRQ_LINE_STATUS, (unsigned long)&line);

	return ret ? ret : line.status;
}

int irq_send_msi(struct vm *vm, unsigned int destination, unsigned int data)
{
	struct kvm_msi msi = {
		.address_lo = APIC_GPA | destination << 12,
		.data = data,
	};

	return try_ioctl(vm->fd, KVM_SIGNAL_MSI, (unsigned long)&msi);
}

static void ignore(int signal)
{
}

static void *run(void *arg)
{
	struct runner *runner = arg;

	if (runner->cpu) {
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET(runner->cpu - 1, &set);
		sched_setaffinity(0, sizeof(set), &set);
	}
	do {
		runner->error = vcpu_run(runner->vcpu);
	} while (!runner->error && runner->on_exit && runner->on_exit(runner));
	return NULL;
}

void runner_start(struct runner *runner)
{
	struct sigaction action = { .sa_handler = ignore };

	sigaction(SIGUSR1, &action, NULL);
	if (pthread_create(&runner->thread, NULL, run, runner))
		die("no thread");
}

void runner_join(struct runner *runner)
{
	pthread_join(runner->thread, NULL);
}

void runner_stop(struct runner *runner)
{
	runner->vcpu->run->immediate_exit = 1;
	/* No effect on a thread that has ended, until it is joined. */
	pthread_kill(runner->thread, SIGUSR1);
	pthread_join(runner->thread, NULL);
	runner->vcpu->run->immediate_exit = 0;
}
