/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parts of checksum.h share: where the guest's pages are, what it may
 * use, and the values that its registers can have.
 */
#ifndef SELFTESTS_CHECKSUM_GUEST_H
#define SELFTESTS_CHECKSUM_GUEST_H

#include "checksum.h"

#define SHARED_GPA	0x102000
#define CLOCK_GPA	0x103000	/* struct pvclock_vcpu_time_info */
#define LDT_GPA		0x104000
#define INTERRUPT_GPA	(CODE_GPA + 0x1000)
#define NMI_GPA		(CODE_GPA + 0x1100)

#define HAS_AVX		1
#define HAS_AVX512	2
#define HAS_RDTSCP	4
#define HAS_CLOCK	8
#define HAS_APIC	16

#define VECTOR		0x31
#define SEL_LDT		0x40
#define GDT_LIMIT	0x4f
#define IDT_LIMIT	0x3ff
/* CF, PF, AF, ZF, SF, DF, OF, AC, ID */
#define FLAGS		0x240cd5
#define APIC_GPA	0xfee00000

/* MSRs that follow the sum; the first ones are known by their places. */
#define MSR_FS_BASE	0
#define MSR_GS_BASE	1
#define MSR_KERNEL_GS	2
#define MSR_TSC_AUX	3
#define N_MSRS		15

struct varying_msr {
	uint32_t index;
	uint64_t vary, always;
};
extern const struct varying_msr checksum_msrs[N_MSRS];
_Static_assert(N_MSRS < CHECKSUM_MSRS, "and one that ends the list");

/* The guest's code, to be loaded at CODE_GPA, INTERRUPT_GPA and NMI_GPA. */
extern const char checksum_main[], checksum_main_end[];
extern const char checksum_interrupt[], checksum_interrupt_end[];
extern const char checksum_nmi[], checksum_nmi_end[];

/* Whether the guest varies that MSR. */
static inline bool checksum_varies(const struct checksum *s, unsigned int msr)
{
	return msr != MSR_TSC_AUX || s->options & HAS_RDTSCP;
}

#endif
