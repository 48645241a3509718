/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A guest that sums up its own state, and the same sum on the client's side.
 *
 * The guest keeps numbers in all that a vCPU has (general registers, flags,
 * x87, SSE, AVX, debug and control registers, selectors, descriptor tables,
 * MSRs, local APIC) and in memory, and folds them into %rax. A report is one
 * turn through all of it. What was lost on the way, or came to another vCPU,
 * makes this and every later sum wrong.
 *
 * The guest runs on without an exit that it asks for until it has made as many
 * reports as it shall; there it writes to PORT_SYNC, and at each interrupt and
 * NMI that it takes until the client lets it go on.
 */
#ifndef SELFTESTS_CHECKSUM_H
#define SELFTESTS_CHECKSUM_H

#include "vm.h"

#define CHECKSUM_MEMORY		0x108000UL	/* the least that the VM needs */
#define CHECKSUM_WORDS		1024
#define CHECKSUM_MSRS		20

/* Where the guest is when it stops. */
enum checksum_where {
	CHECKSUM_MAIN,		/* with a self-IPI pending, if it has a local APIC */
	CHECKSUM_INTERRUPT,	/* in the handler of that IPI, before its EOI */
	CHECKSUM_NMI,		/* in the handler of an NMI, which blocks others */
};

/* What client and guest share, at DATA_GPA + 2 pages. */
struct checksum_shared {
	uint64_t reports;	/* made so far */
	uint64_t stop_at;
	uint64_t steps;		/* of one report */
	uint64_t options;
	uint64_t scratch[2];
	uint64_t where;		/* enum checksum_where */
	uint64_t one;
	uint64_t interrupts;	/* taken so far */
	uint64_t nmis;
	uint64_t tsc;		/* when last read */
	uint64_t clock;		/* nanoseconds of the paravirtual clock, likewise */
	uint64_t backwards;	/* how often one of them was less than before */
	uint64_t unused[3];
	struct {
		uint64_t index;	/* 0 ends the list */
		uint64_t vary;	/* bits that follow the sum */
		uint64_t always;
	} msrs[CHECKSUM_MSRS];
};

/* The guest's numbers as they must be after so many reports. */
struct checksum {
	uint64_t options, steps, reports;
	uint64_t rax, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15;
	uint64_t mem[CHECKSUM_WORDS];
	uint64_t xmm0, xmm[16][2], ymm0, ymm15, zmm16, k1, xcr0;
	uint64_t cr0, cr2, cr4, dr[4], dr6, dr7;
	uint64_t msrs[CHECKSUM_MSRS];
	uint32_t fp[8], fp_top, fcw, mxcsr, flags;
	uint32_t ds, es, ldtr, gdt_limit, idt_limit;
	uint32_t lvt, ldr, icount, divide;
	uint64_t nmis, nmis_due;
};

/*
 * Makes @vcpu, new and with CPUID set, such a guest with @steps steps a report.
 * With @apic, it uses its local APIC, which the VM must have.
 */
void checksum_start(struct checksum *sum, struct vcpu *vcpu, uint64_t seed,
		    unsigned int steps, bool apic);
struct checksum_shared *checksum_shared(struct vm *vm);
/*
 * Runs to the next stop, from one to the next, with each way to get there: a
 * report, at which it injects an NMI if @nmi; the handler of that, into which
 * it injects another; the handler of the interrupt. Returns whether all was
 * right, and leaves nothing to complete.
 */
bool checksum_run(struct checksum *sum, struct vcpu *vcpu, bool nmi);
/* Follows the guest by @reports. */
void checksum_follow(struct checksum *sum, unsigned int reports);
/* Gives @vm memory of its own, a copy of all that the guest has of @mem. */
void checksum_copy_memory(struct vm *vm, const char *mem);
/* Whether a guest that stopped in CHECKSUM_MAIN is where @sum is; tells what is not. */
bool checksum_check(const struct checksum *sum, struct vcpu *vcpu);

#endif
