/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The machine that the vmm emulates, as its guest sees it.
 */
#ifndef GUEST_MACHINE_H
#define GUEST_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#define SERIAL_DATA	0x3f8
#define SERIAL_STATUS	0x3fd
#define SERIAL_READY	0x20

/* A status written here ends the guest. */
#define DEBUG_EXIT	0xf4

/* A device in memory: an identification, and a counter that counts its own reads. */
#define COUNTER		0xd0000000ul
#define COUNTER_ID	0x72746e63u	/* "cntr" */

struct counter {
	uint32_t id;
	uint32_t count;
};

/* The task priority of the local APIC: interrupts below it wait. */
#define TASK_PRIORITY	0xfee00080ul

struct cpuid {
	uint32_t eax, ebx, ecx, edx;
};

static inline void outb(uint16_t port, uint8_t value)
{
	asm volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
	uint8_t value;

	asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline struct cpuid cpuid(uint32_t leaf)
{
	struct cpuid r;

	asm volatile("cpuid"
		     : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
		     : "a"(leaf), "c"(0));
	return r;
}

#endif
