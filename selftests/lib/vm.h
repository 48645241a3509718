/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What every selftest needs to have a guest: the device, a VM with memory at
 * guest-physical 0, vCPUs in any mode, guest code and a run loop.
 *
 * The functions here end the test program with a message when something fails
 * that the test did not ask about. What a test does ask about it calls itself.
 */
#ifndef SELFTESTS_VM_H
#define SELFTESTS_VM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE		0x1000UL
#define SZ_2M		0x200000UL
#define SZ_4M		0x400000UL

/*
 * Guest-physical layout of a VM made by vm_create(). Everything below
 * DATA_GPA is the library's or code; tests use what follows.
 */
#define GDT_GPA		0x1000UL
#define TSS_GPA		0x1800UL
#define IDT_GPA		0x2000UL
#define HANDLER_GPA	0x3000UL
#define RECORD_GPA	0x3e00UL	/* struct exception_record */
#define LONG_PT_GPA	0x4000UL	/* PML4, PDPT, four page directories */
#define PAGED_PT_GPA	0xa000UL	/* page directory of 4M pages */
#define PAE_PT_GPA	0xb000UL	/* PDPT, four page directories */
#define CODE_GPA	0x10000UL
#define STACK_GPA	0x80000UL	/* top; the stack grows down from here */
#define DATA_GPA	0x100000UL

/* The default memory of a VM, and an address that has none behind it. */
#define VM_MEMORY	SZ_2M
#define MMIO_GPA	0xc0000000UL

/* Ports by which a guest talks to the run loop. */
#define PORT_DONE	0xd0		/* the guest has finished what it does */
#define PORT_SYNC	0xd1		/* the client has to look */
#define PORT_EXCEPTION	0xd2		/* an exception that the guest did not expect */

/* Selectors of the GDT. */
#define SEL_CODE64	0x08
#define SEL_DATA	0x10
#define SEL_CODE32	0x18
#define SEL_CODE16	0x20
#define SEL_DATA16	0x28
#define SEL_TSS		0x30

#define STR1(x)		#x
#define STR(x)		STR1(x)

/*
 * Guest code: position-independent assembly between the symbols NAME and
 * NAME_end, copied into guest memory by vm_load(). BITS is 16, 32 or 64.
 */
#define GUEST_CODE(name, bits, text)					\
	extern const char name[], name##_end[];				\
	asm(".pushsection .rodata\n"					\
	    ".globl " #name ", " #name "_end\n"				\
	    ".balign 16\n"						\
	    ".code" #bits "\n"						\
	    #name ":\n"							\
	    text "\n"							\
	    #name "_end:\n"						\
	    ".code64\n"							\
	    ".popsection\n")

/* What the guest's exception handlers leave at RECORD_GPA. */
struct exception_record {
	uint64_t count;		/* exceptions taken so far */
	uint64_t vector;
	uint64_t error;		/* 0 for a vector without an error code */
	uint64_t rip;
	uint64_t rflags;
	uint64_t cr2;
	uint64_t resume;	/* where to go on; 0: report to PORT_EXCEPTION */
	uint64_t saved;		/* the handlers' own */
};

/* Names of record fields as addresses for guest code. */
#define REC_COUNT	"0x3e00"
#define REC_VECTOR	"0x3e08"
#define REC_ERROR	"0x3e10"
#define REC_RESUME	"0x3e30"

enum mode {
	MODE_REAL,		/* CS base CODE_GPA, everything else base 0 */
	MODE_PROTECTED,		/* 32-bit flat, no paging */
	MODE_PAGED,		/* 32-bit, identity mapped by 4M pages */
	MODE_PAE,		/* 32-bit, identity mapped by 2M PAE pages */
	MODE_LONG,		/* 64-bit, identity mapped by 2M pages to 4G */
};

struct vm {
	int dev;
	int fd;
	char *mem;		/* memory of slot 0, at guest-physical 0 */
	size_t size;
};

struct vcpu {
	struct vm *vm;
	int fd;
	struct kvm_run *run;
	size_t run_size;
};

/* The path of the device under test: KVM_RS_DEVICE, else whichever exists. */
const char *device_path(void);
/* Returns true if the device under test is kvm_rs rather than kvm_intel. */
bool device_is_kvm_rs(void);
/* Returns whether guests may turn paging on: kvm_rs has no shadow paging. */
bool guests_can_page(void);
int device_open(void);

#define die(fmt, ...)							\
	__die("# %s:%d: " fmt "\n", __FILE__, __LINE__, ##__VA_ARGS__)
void __die(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* An ioctl that must not fail; returns its value. */
#define xioctl(fd, request, arg)					\
	__xioctl(fd, request, (unsigned long)(arg), #request, __FILE__, __LINE__)
long __xioctl(int fd, unsigned long request, unsigned long arg,
	      const char *name, const char *file, int line);

/* An ioctl whose failure is part of the test: its value or minus errno. */
long try_ioctl(int fd, unsigned long request, unsigned long arg);

/* Anonymous memory of @size bytes aligned to @align, not yet touched. */
void *memory_alloc(size_t size, size_t align);
/* Whether the host gave large pages for the mapping at an address. */
bool memory_is_huge(const void *p);
/* Sets one memory slot; returns 0 or minus errno. */
int vm_set_slot(struct vm *vm, unsigned int slot, unsigned int flags,
		uint64_t gpa, uint64_t size, void *host);

/* A VM with @size bytes of memory at 0 that hold tables and handlers. */
void vm_create(struct vm *vm, size_t size);
/* A VM and nothing else. */
void vm_create_empty(struct vm *vm);
void vm_destroy(struct vm *vm);
/* Copies guest code to @gpa of slot 0. */
void __vm_load(struct vm *vm, uint64_t gpa, const char *start, const char *end);
#define vm_load(vm, gpa, code)	__vm_load(vm, gpa, code, code##_end)
struct exception_record *vm_record(struct vm *vm);
/* Writes a record of the GDT; @access and @flags as in the descriptor. */
#define vm_u64(vm, gpa)		((volatile uint64_t *)((vm)->mem + (gpa)))

void vcpu_create(struct vcpu *vcpu, struct vm *vm, unsigned int id);
void vcpu_destroy(struct vcpu *vcpu);
/* Gives the vCPU all CPUID leaves that the device supports. */
void vcpu_set_supported_cpuid(struct vcpu *vcpu);
/* Likewise, without the features that are set in the @n leaves of @without. */
void vcpu_set_cpuid_without(struct vcpu *vcpu, const struct kvm_cpuid_entry2 *without,
			    unsigned int n);
/* Likewise, with only the features that both kvm_rs and kvm_intel support, of those that are there. */
void vcpu_set_common_cpuid(struct vcpu *vcpu);
void vcpu_set_mode(struct vcpu *vcpu, enum mode mode);
/* The usual way to start: vCPU 0 with CPUID set, in @mode at CODE_GPA. */
void vcpu_start(struct vcpu *vcpu, struct vm *vm, enum mode mode);

struct kvm_regs vcpu_regs(struct vcpu *vcpu);
void vcpu_set_regs(struct vcpu *vcpu, const struct kvm_regs *regs);
struct kvm_sregs vcpu_sregs(struct vcpu *vcpu);
void vcpu_set_sregs(struct vcpu *vcpu, const struct kvm_sregs *sregs);
void vcpu_set_rip(struct vcpu *vcpu, uint64_t rip);
/* An MSR that must be there. */
uint64_t vcpu_msr(struct vcpu *vcpu, uint32_t index);
void vcpu_set_msr(struct vcpu *vcpu, uint32_t index, uint64_t value);
/* A CPUID leaf as it was given to the vCPU, subleaf 0; all zero if it was not. */
struct kvm_cpuid_entry2 vcpu_cpuid(struct vcpu *vcpu, uint32_t leaf);

/* KVM_RUN; returns 0 or minus errno. */
int vcpu_run(struct vcpu *vcpu);
/*
 * Lets an instruction that user space has answered end, and nothing more: its
 * registers may be read and set then.
 */
void vcpu_complete(struct vcpu *vcpu);
/* Runs to the next exit, which must have reason @reason. */
#define vcpu_run_to(vcpu, reason)					\
	__vcpu_run_to(vcpu, reason, __FILE__, __LINE__)
void __vcpu_run_to(struct vcpu *vcpu, unsigned int reason,
		   const char *file, int line);
/* Runs to the next exit, which must be a one-byte OUT to @port. */
#define vcpu_run_to_port(vcpu, port)					\
	__vcpu_run_to_port(vcpu, port, __FILE__, __LINE__)
void __vcpu_run_to_port(struct vcpu *vcpu, unsigned int port,
			const char *file, int line);
/*
 * Calls code at @rip that ends at PORT_DONE, with a stack, interrupts off, and RDI
 * and RSI given; returns its registers.
 */
struct kvm_regs vcpu_call(struct vcpu *vcpu, uint64_t rip, uint64_t rdi, uint64_t rsi);
/* Describes the last exit on stdout. */
void vcpu_dump(struct vcpu *vcpu, int error);
/*
 * Whether the -EFAULT that KVM_RUN just gave says so in kvm_run: KVM leaves
 * KVM_EXIT_UNKNOWN there, KVM_EXIT_MEMORY_FAULT must name the page of @gpa.
 */
bool vcpu_fault_is_at(struct vcpu *vcpu, uint64_t gpa);
/* Data of a port exit. */
void *vcpu_io_data(struct vcpu *vcpu);

/* Host pages in use (not free, not on a per-CPU free list), after RCU. */
long host_pages_used(void);
/* One value of /proc/meminfo in KiB; -1 if there is none. */
long meminfo(const char *name);
/* One value of /sys/kernel/debug/kvm-rs/stats; -1 if there is none. */
long module_stat(const char *name);
/* One value of the VM's statistics in debugfs, those of vCPUs summed up, which must be there. */
long vm_stat(const struct vm *vm, const char *name);
/* The first letter of a parameter of the module under test; EOF if there is none. */
int module_parameter(const char *name);

#endif
