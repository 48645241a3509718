// SPDX-License-Identifier: GPL-2.0
/*
 * What the module found on this CPU: its parameters, and what it told when it
 * was loaded, against the CPU's capability MSRs. For a module that was loaded
 * without parameters.
 */
#include "kselftest_harness.h"
#include "vm.h"

#define MSR_PIN_CONTROLS	0x481
#define MSR_PROCESSOR_CONTROLS	0x482
#define MSR_SECONDARY_CONTROLS	0x48b
#define MSR_EPT_VPID_CAP	0x48c

#define VIRTUAL_NMIS		(1UL << 5)	/* of the pin-based controls */
#define POSTED_INTERRUPTS	(1UL << 7)
#define TPR_SHADOW		(1UL << 21)	/* of the processor-based controls */
#define SECONDARY		(1UL << 31)
#define APIC_ACCESSES		(1UL << 0)	/* of the secondary ones */
#define EPT			(1UL << 1)
#define VPID			(1UL << 5)
#define UNRESTRICTED		(1UL << 7)
#define APICV			(3UL << 8)	/* registers, and delivery */
#define PML			(1UL << 17)
#define EPT_WALK_4		(1UL << 6)	/* of EPT and VPIDs */
#define EPT_WRITE_BACK		(1UL << 14)
#define EPT_2M			(1UL << 16)
#define EPT_1G			(1UL << 17)
#define INVEPT			(1UL << 20)
#define EPT_AD			(1UL << 21)
#define INVEPT_TYPES		(3UL << 25)
#define INVVPID			(1UL << 32)
#define INVVPID_TYPES		(3UL << 41)

struct cpu {
	bool ept, ept_2m, ept_1g, eptad, vpid, vnmi, unrestricted, flexpriority, pml, apicv;
};

/* An MSR of the host; 0 if there is none. */
static uint64_t host_msr(uint32_t index)
{
	int fd = open("/dev/cpu/0/msr", O_RDONLY);
	uint64_t value = 0;

	if (pread(fd, &value, sizeof(value), index) != sizeof(value))
		value = 0;
	close(fd);
	return value;
}

static struct cpu read_cpu(void)
{
	/* The upper halves are the controls that may be 1. */
	uint64_t first = host_msr(MSR_PROCESSOR_CONTROLS) >> 32, second = 0, ept = 0;
	struct cpu cpu = {};

	if (first & SECONDARY)
		second = host_msr(MSR_SECONDARY_CONTROLS) >> 32;
	if (second & (EPT | VPID))
		ept = host_msr(MSR_EPT_VPID_CAP);
	cpu.ept = second & EPT && ept & EPT_WALK_4 && ept & EPT_WRITE_BACK && ept & INVEPT &&
		  ept & INVEPT_TYPES;
	cpu.ept_2m = cpu.ept && ept & EPT_2M;
	cpu.ept_1g = cpu.ept && ept & EPT_1G;
	cpu.eptad = cpu.ept && ept & EPT_AD;
	cpu.vnmi = host_msr(MSR_PIN_CONTROLS) >> 32 & VIRTUAL_NMIS;
	cpu.vpid = second & VPID && ept & INVVPID && ept & INVVPID_TYPES;
	cpu.unrestricted = cpu.ept && second & UNRESTRICTED;
	cpu.flexpriority = second & APIC_ACCESSES && first & TPR_SHADOW;
	cpu.pml = cpu.eptad && second & PML;
	cpu.apicv = cpu.unrestricted && first & TPR_SHADOW && (second & APICV) == APICV &&
		    host_msr(MSR_PIN_CONTROLS) >> 32 & POSTED_INTERRUPTS;
	return cpu;
}

/* The lines of the kernel's log that the module wrote about features. */
static const char *module_log(void)
{
	static char log[4096], record[1024];
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	size_t used = 0;
	ssize_t size;
	char *text;

	log[0] = 0;
	while ((size = read(fd, record, sizeof(record) - 1)) > 0 || (size < 0 && errno == EPIPE)) {
		if (size < 0)
			continue;
		record[size] = 0;
		text = strstr(record, ";kvm_rs: ");
		if (!text || strstr(text, "uses symbol") || used + size >= sizeof(log))
			continue;
		strcpy(log + used, text + 1);
		used += strlen(text + 1);
	}
	close(fd);
	return log;
}

/* Whether the log says that @name is on, 1, or off, 0; -1 if it does not say. */
static int logged(const char *log, const char *name)
{
	const char *at = strstr(log, name);

	if (!at)
		return -1;
	at += strlen(name);
	return !strncmp(at, " on", 3) ? 1 : !strncmp(at, " off", 4) ? 0 : -1;
}

FIXTURE(model) {
	struct cpu cpu;
	const char *log;
};

FIXTURE_SETUP(model)
{
	if (module_parameter("ept") == EOF || access("/dev/cpu/0/msr", R_OK))
		SKIP(return, "not kvm_rs, or no MSRs to be read");
	self->cpu = read_cpu();
	self->log = module_log();
}

FIXTURE_TEARDOWN(model)
{
}

TEST_F(model, parameters)
{
	struct cpu *cpu = &self->cpu;

	EXPECT_EQ(module_parameter("ept") == 'Y', cpu->ept);
	EXPECT_EQ(module_parameter("eptad") == 'Y', cpu->eptad);
	EXPECT_EQ(module_parameter("vpid") == 'Y', cpu->vpid);
	EXPECT_EQ(module_parameter("vnmi") == 'Y', cpu->vnmi);
	EXPECT_EQ(module_parameter("unrestricted_guest") == 'Y', cpu->unrestricted);
	/* What the module may leave alone though the CPU has it. */
	if (module_parameter("flexpriority") == 'Y')
		EXPECT_EQ(cpu->flexpriority, true);
	if (module_parameter("pml") == 'Y')
		EXPECT_EQ(cpu->pml, true);
	if (module_parameter("enable_apicv") == 'Y')
		EXPECT_EQ(cpu->apicv, true);
}

TEST_F(model, log)
{
	static const char *const names[][2] = {
		{ "VPID", "vpid" },
		{ "unrestricted guest", "unrestricted_guest" },
		{ "FlexPriority", "flexpriority" },
		{ "APICv", "enable_apicv" },
		{ "PML", "pml" },
	};
	char pages[64];
	unsigned int i;

	if (!*self->log)
		SKIP(return, "the log begins after the module was loaded");
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		EXPECT_EQ(logged(self->log, names[i][0]), module_parameter(names[i][1]) == 'Y')
			TH_LOG("%s in: %s", names[i][0], self->log);
	}
	if (!self->cpu.ept)
		return;
	EXPECT_EQ(logged(self->log, "accessed and dirty bits"), self->cpu.eptad);
	snprintf(pages, sizeof(pages), "EPT with pages of 4K%s%s,", self->cpu.ept_2m ? ", 2M" : "",
		 self->cpu.ept_1g ? ", 1G" : "");
	EXPECT_NE(strstr(self->log, pages), NULL) TH_LOG("%s in: %s", pages, self->log);
}

TEST_HARNESS_MAIN
