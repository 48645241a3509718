/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Guests that take interrupts: handlers that count, vCPUs on threads, and the
 * client's side of interrupt controllers in the kernel.
 */
#ifndef SELFTESTS_IRQ_H
#define SELFTESTS_IRQ_H

#include <pthread.h>

#include "vm.h"

/* Code of the counting handlers, and a counter of 8 bytes for each vector. */
#define IRQ_STUBS_GPA		0x20000UL
#define IRQ_COUNTERS_GPA	DATA_GPA
#define IRQ_FIRST_VECTOR	0x20

#define APIC_GPA	0xfee00000UL
#define IOAPIC_GPA	0xfec00000UL

/* The irqchip that a VM is to have; to be made before its first vCPU. */
int vm_split_irqchip(struct vm *vm, unsigned int pins);
int vm_create_irqchip(struct vm *vm);

/*
 * Fills the IDT: vectors from IRQ_FIRST_VECTOR on count and end their interrupt
 * at the local APIC, in xAPIC mode. For MODE_LONG.
 */
void irq_install_handlers(struct vm *vm);
/* The same for PICs with vectors 0x20 to 0x2f: EOI at the slave, too, from 0x28 on. */
void irq_install_pic_handlers(struct vm *vm);
/*
 * Has the handler of a vector say so by PORT_SYNC before it ends the interrupt.
 * AL has the low byte of the vector then.
 */
void irq_install_telling_handler(struct vm *vm, unsigned int vector);
/* Points a gate of the IDT elsewhere. */
void irq_set_gate(struct vm *vm, unsigned int vector, uint64_t target);
/* Loads the IDT in the vCPU. */
void irq_load_idt(struct vcpu *vcpu);
/* How often a vector was handled. */
#define irq_count(vm, vector)	(*vm_u64(vm, IRQ_COUNTERS_GPA + (vector) * 8))
/* Waits until a word of guest memory has a value; returns whether it came to. */
bool irq_wait_for(volatile uint64_t *word, uint64_t value);
#define irq_wait_count(vm, vector, count)				\
	irq_wait_for(vm_u64(vm, IRQ_COUNTERS_GPA + (vector) * 8), count)

/* A route for KVM_SET_GSI_ROUTING. */
struct kvm_irq_routing_entry irq_msi_route(unsigned int gsi, unsigned int destination,
					   unsigned int data);
struct kvm_irq_routing_entry irq_pin_route(unsigned int gsi, unsigned int chip,
					   unsigned int pin);
int irq_set_routes(struct vm *vm, const struct kvm_irq_routing_entry *entries,
		   unsigned int count);
/* KVM_IRQ_LINE_STATUS: minus errno below -1; else what it says. */
int irq_line(struct vm *vm, unsigned int gsi, int level);
int irq_send_msi(struct vm *vm, unsigned int destination, unsigned int data);

/* The state of a controller in the kernel. */
void irq_get_chip(struct vm *vm, unsigned int id, struct kvm_irqchip *chip);
void irq_set_chip(struct vm *vm, const struct kvm_irqchip *chip);
/* Sets the redirection entry of a pin of the I/O APIC; returns the old one. */
uint64_t irq_set_entry(struct vm *vm, unsigned int pin, uint64_t entry);
uint64_t irq_get_entry(struct vm *vm, unsigned int pin);
#define ENTRY_REMOTE_IRR	(1UL << 14)
#define ENTRY_LEVEL		(1UL << 15)
#define ENTRY_MASKED		(1UL << 16)
#define ENTRY_TO(id)		((uint64_t)(id) << 56)

/* A further vCPU, which runs at once, with an IDT, in MODE_LONG at CODE_GPA. */
void irq_add_vcpu(struct vcpu *vcpu, struct vm *vm, unsigned int id, uint64_t stack);

/* A vCPU that runs on a thread of its own until it is stopped or exits. */
struct runner {
	struct vcpu *vcpu;
	pthread_t thread;
	int error;		/* of the last KVM_RUN */
	unsigned int cpu;	/* where to run, plus 1; 0 for anywhere */
	/* Called at each exit, if set; whether to go on. */
	bool (*on_exit)(struct runner *runner);
	void *data;
};
void runner_start(struct runner *runner);
/* Waits until it has ended by itself. */
void runner_join(struct runner *runner);
/* Ends it; runner->error is -EINTR then if it was still running. */
void runner_stop(struct runner *runner);

/*
 * Guest code of MODE_LONG: software-enables the local APIC, says so by
 * PORT_SYNC, then halts with interrupts on for ever.
 */
extern const char irq_guest_halt[], irq_guest_halt_end[];

#endif
