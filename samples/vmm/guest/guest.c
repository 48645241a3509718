// SPDX-License-Identifier: GPL-2.0
/*
 * A guest that does a little of everything a guest does to its hypervisor: it asks for CPUID,
 * touches memory that nothing backs yet, reads a device in memory, raises and lowers its task priority,
 * and says on the serial port what it found.
 *
 * Its status is the number of things that were not as they should be.
 */

#include "machine.h"
#include "print.h"

#define MIB		(1ul << 20)
#define PAGE		4096ul
#define WORK_START	(8 * MIB)
#define WORK_SIZE	(64 * MIB)

#define RAISES		10000u

#define HYPERVISOR_LEAF	0x40000000
#define HYPERVISOR_BIT	(1u << 31)

static unsigned int faults;

/* Prints how a check came out, and counts it when it failed. */
static void verdict(bool ok)
{
	print(ok ? ", ok\n" : ", WRONG\n");
	if (!ok)
		faults++;
}

/* Prints registers that hold the letters of a name. */
static void print_name(uint32_t a, uint32_t b, uint32_t c)
{
	union {
		uint32_t word[3];
		char text[13];
	} name = { .word = { a, b, c } };

	print(name.text);
}

static void show_cpu(void)
{
	struct cpuid vendor = cpuid(0);
	struct cpuid host = cpuid(HYPERVISOR_LEAF);
	bool virtual = cpuid(1).ecx & HYPERVISOR_BIT;

	print("  cpu       ");
	print_name(vendor.ebx, vendor.edx, vendor.ecx);
	print(", CPUID leaves to ");
	print_hex(vendor.eax, 2);
	if (virtual) {
		print(", hypervisor ");
		print_name(host.ebx, host.ecx, host.edx);
	}
	verdict(virtual);
}

static void show_mode(void)
{
	uint64_t cr0, cr3, cr4;

	asm volatile("mov %%cr0, %0" : "=r"(cr0));
	asm volatile("mov %%cr3, %0" : "=r"(cr3));
	asm volatile("mov %%cr4, %0" : "=r"(cr4));
	print("  mode      64-bit, cr0 ");
	print_hex(cr0, 8);
	print(", cr3 ");
	print_hex(cr3, 8);
	print(", cr4 ");
	print_hex(cr4, 8);
	print("\n");
}

/* Returns a word that depends on every bit of @seed. */
static uint64_t mix(uint64_t seed)
{
	seed = (seed ^ seed >> 30) * 0xbf58476d1ce4e5b9;
	seed = (seed ^ seed >> 27) * 0x94d049bb133111eb;
	return seed ^ seed >> 31;
}

/* Returns the word of page @page that holds its pattern: another one in each page. */
static volatile uint64_t *word_of(uint64_t page)
{
	uint64_t offset = mix(page) % (PAGE / sizeof(uint64_t)) * sizeof(uint64_t);

	return (volatile uint64_t *)(WORK_START + page * PAGE + offset);
}

/* Writes to each page once, from first to last, and reads all of them back from last to first. */
static void work(uint64_t memory)
{
	uint64_t size = memory - WORK_START < WORK_SIZE ? memory - WORK_START : WORK_SIZE;
	uint64_t pages = size / PAGE;
	uint64_t expected = 0, sum = 0, used = 0, page;

	for (page = 0; page < pages; page++) {
		volatile uint64_t *word = word_of(page);

		used += *word != 0;
		*word = mix(~page);
		expected = mix(expected ^ mix(~(pages - 1 - page)));
	}
	for (page = pages; page--;)
		sum = mix(sum ^ *word_of(page));

	print("  memory    ");
	print_number(memory / MIB);
	print(" MiB, wrote to ");
	print_number(pages);
	print(" pages of ");
	print_number(size / MIB);
	print(" MiB, all zero before");
	verdict(!used);

	print("  checksum  ");
	print_hex(sum, 16);
	verdict(sum == expected);
}

static void use_device(void)
{
	volatile struct counter *counter = (volatile struct counter *)COUNTER;
	bool ok = counter->id == COUNTER_ID;
	unsigned int i;

	print("  device    counter at ");
	print_hex(COUNTER, 8);
	print(" set to 41, then read");
	counter->count = 41;
	for (i = 1; i <= 3; i++) {
		uint32_t count = counter->count;

		print(" ");
		print_number(count);
		ok &= count == 41 + i;
	}
	verdict(ok);
}

/* Keeps interrupts away for a moment again and again, as 32-bit Windows does around its locks. */
static void use_priority(void)
{
	volatile uint32_t *priority = (volatile uint32_t *)TASK_PRIORITY;
	bool ok = true;
	unsigned int i;

	for (i = 0; i < RAISES; i++) {
		*priority = 0x41;
		ok &= *priority == 0x41;
		*priority = 0;
	}
	print("  priority  raised, read and lowered, in ");
	print_number(3 * RAISES);
	print(" TPR accesses");
	verdict(ok);
}

/* Called by entry.S with the size of memory in bytes. */
__attribute__((noreturn)) void guest_main(uint64_t memory)
{
	print("guest: hello\n");
	show_cpu();
	show_mode();
	if (memory > WORK_START)
		work(memory);
	use_device();
	use_priority();
	print("guest: done\n");

	for (;;)
		outb(DEBUG_EXIT, faults);
}
