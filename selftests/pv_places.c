// SPDX-License-Identifier: GPL-2.0
/*
 * The places in guest memory that the host writes and reads on its own: the
 * clock, stolen time, the byte for ends of interrupts and the word for the task
 * priority. They are found once and used many times; what is used must be the
 * memory that the slots have there now.
 */
#include "irq.h"
#include "kselftest_harness.h"
#include "vm.h"

#define MSR_SYSTEM_TIME	0x4b564d01
#define MSR_WALL_CLOCK	0x4b564d00
#define MSR_STEAL_TIME	0x4b564d03
#define MSR_PV_EOI	0x4b564d04
#define ENABLED		1

#define AREA_GPA	0x40000000UL
#define AREA_PAGES	4
#define AREA_SIZE	(AREA_PAGES * PAGE)
#define CLOCK_AT	0x40UL
#define STEAL_AT	0x1040UL
#define EOI_AT		0x2000UL
#define VAPIC_AT	0x3800UL
#define ELSEWHERE	0x50000000UL

#define VECTOR		0x60
#define HANDLER_AT	0x20000UL

/* Enables the local APIC and reports for ever. */
GUEST_CODE(reports, 64,
	"	movl $0xfee000f0, %edi\n"
	"	movl $0x1ff, (%rdi)\n"
	"	sti\n"
	"1:	outb %al, $" STR(PORT_SYNC) "\n"
	"	jmp 1b\n");

/* Takes what it is offered, if anything, instead of ending the interrupt. */
GUEST_CODE(handler, 64,
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	movzbl 0x40002000, %ebx\n"
	"	movb $0, 0x40002000\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	iretq\n");

/* Sets the task priority by the word, and looks at the word. */
GUEST_CODE(patched, 64,
	"	movb $0x50, 0x40003800\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	movl 0x40003800, %ebx\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	movb $0x70, 0x40003800\n"
	"	outb %al, $" STR(PORT_SYNC) "\n");

FIXTURE(places) {
	struct vm vm;
	struct vcpu vcpu;
	char *a, *b;		/* memory for the slot */
	char *copy;
};

static int set_slot(FIXTURE_DATA(places) *self, unsigned int flags, uint64_t gpa,
		    char *mem)
{
	return vm_set_slot(&self->vm, 1, flags, gpa, mem ? AREA_SIZE : 0, mem ?: self->a);
}

FIXTURE_SETUP(places)
{
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };

	if (!guests_can_page())
		SKIP(return, "the guest would page");
	vm_create(&self->vm, VM_MEMORY);
	xioctl(self->vm.fd, KVM_ENABLE_CAP, &split);
	vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
	vm_load(&self->vm, CODE_GPA, reports);
	self->a = memory_alloc(AREA_SIZE, PAGE);
	self->b = memory_alloc(AREA_SIZE, PAGE);
	self->copy = memory_alloc(AREA_SIZE, PAGE);
	memset(self->a, 0, AREA_SIZE);
	memset(self->b, 0, AREA_SIZE);
	ASSERT_EQ(set_slot(self, 0, AREA_GPA, self->a), 0);
}

FIXTURE_TEARDOWN(places)
{
	if (!self->copy)
		return;
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	munmap(self->a, AREA_SIZE);
	munmap(self->b, AREA_SIZE);
	munmap(self->copy, AREA_SIZE);
}

/* What is in the slot now goes elsewhere in the client's memory, empty. */
static int replace(FIXTURE_DATA(places) *self, char *mem)
{
	memset(mem, 0, AREA_SIZE);
	return set_slot(self, 0, AREA_GPA, NULL) ?: set_slot(self, 0, AREA_GPA, mem);
}

/* Has the clock and the stolen time written anew, and the guest run. */
static void update(FIXTURE_DATA(places) *self)
{
	vcpu_set_msr(&self->vcpu, MSR_SYSTEM_TIME, (AREA_GPA + CLOCK_AT) | ENABLED);
	vcpu_set_msr(&self->vcpu, MSR_STEAL_TIME, (AREA_GPA + STEAL_AT) | ENABLED);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
}

static uint32_t clock_version(const char *mem)
{
	return *(volatile uint32_t *)(mem + CLOCK_AT);
}

static uint32_t steal_version(const char *mem)
{
	return *(volatile uint32_t *)(mem + STEAL_AT + 8);
}

/* The multiplier, of which the rest is made. */
static uint32_t clock_scale(const char *mem)
{
	return *(volatile uint32_t *)(mem + CLOCK_AT + 24);
}

TEST_F(places, clock_and_stolen_time_follow_the_slot)
{
	unsigned int i;
	char *now = self->a, *before = self->b;

	update(self);
	for (i = 0; i < 4; i++) {
		EXPECT_NE(clock_version(now), 0);
		EXPECT_EQ(clock_version(now) & 1, 0);
		EXPECT_NE(steal_version(now), 0);
		EXPECT_EQ(steal_version(now) & 1, 0);
		EXPECT_NE(clock_scale(now), 0);
		before = now;
		now = i & 1 ? self->a : self->b;
		ASSERT_EQ(replace(self, now), 0);
		memcpy(self->copy, before, AREA_SIZE);
		update(self);
		EXPECT_EQ(memcmp(before, self->copy, AREA_SIZE), 0);
	}

	/* Where there is nothing, nothing is written, and the guest goes on. */
	memcpy(self->copy, now, AREA_SIZE);
	ASSERT_EQ(set_slot(self, 0, ELSEWHERE, now), 0);
	update(self);
	EXPECT_EQ(memcmp(now, self->copy, AREA_SIZE), 0);
	ASSERT_EQ(set_slot(self, 0, AREA_GPA, now), 0);
	update(self);
	EXPECT_GT(clock_version(now), *(uint32_t *)(self->copy + CLOCK_AT));
	EXPECT_GT(steal_version(now), *(uint32_t *)(self->copy + STEAL_AT + 8));
	ASSERT_EQ(set_slot(self, 0, AREA_GPA, NULL), 0);
	memcpy(self->copy, now, AREA_SIZE);
	update(self);
	EXPECT_EQ(memcmp(now, self->copy, AREA_SIZE), 0);
	/* Nor where the guest itself could not write. */
	ASSERT_EQ(set_slot(self, KVM_MEM_READONLY, AREA_GPA, now), 0);
	update(self);
	EXPECT_EQ(memcmp(now, self->copy, AREA_SIZE), 0);
}

static uint64_t dirty_pages(FIXTURE_DATA(places) *self)
{
	uint64_t bitmap = 0;
	struct kvm_dirty_log log = { .slot = 1, .dirty_bitmap = &bitmap };

	xioctl(self->vm.fd, KVM_GET_DIRTY_LOG, &log);
	return bitmap;
}

TEST_F(places, writes_are_logged_from_when_the_slot_logs)
{
	struct kvm_vapic_addr address = { .vapic_addr = AREA_GPA + VAPIC_AT };
	unsigned int i;

	update(self);
	ASSERT_EQ(set_slot(self, KVM_MEM_LOG_DIRTY_PAGES, AREA_GPA, self->a), 0);
	for (i = 0; i < 3; i++) {
		update(self);
		EXPECT_EQ(dirty_pages(self), 1UL << CLOCK_AT / PAGE | 1UL << STEAL_AT / PAGE);
	}
	xioctl(self->vcpu.fd, KVM_SET_VAPIC_ADDR, &address);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	EXPECT_TRUE(dirty_pages(self) >> VAPIC_AT / PAGE & 1);
}

/* Whether an interrupt is in service. */
static bool is_in_service(struct vcpu *vcpu)
{
	struct kvm_lapic_state lapic;
	uint32_t word;

	xioctl(vcpu->fd, KVM_GET_LAPIC, &lapic);
	memcpy(&word, lapic.regs + 0x100 + VECTOR / 32 * 16, 4);
	return word >> VECTOR % 32 & 1;
}

TEST_F(places, ends_of_interrupts_follow_the_slot)
{
	struct kvm_msi msi = { .address_lo = 0xfee00000, .data = VECTOR };
	volatile uint64_t *gate = vm_u64(&self->vm, IDT_GPA + VECTOR * 16);
	struct kvm_sregs sregs = vcpu_sregs(&self->vcpu);
	char *mem[] = { self->a, self->b, self->a };
	unsigned int i;

	if (device_is_kvm_rs() && module_parameter("enable_apicv") == 'Y')
		SKIP(return, "interrupts end without an exit anyway");
	vm_load(&self->vm, HANDLER_AT, handler);
	sregs.idt.base = IDT_GPA;
	sregs.idt.limit = 0xfff;
	vcpu_set_sregs(&self->vcpu, &sregs);
	gate[0] = (HANDLER_AT & 0xffff) | (uint64_t)SEL_CODE64 << 16 |
		  0x8e00ULL << 32 | (HANDLER_AT & 0xffff0000) << 32;
	gate[1] = 0;
	vcpu_set_msr(&self->vcpu, MSR_PV_EOI, (AREA_GPA + EOI_AT) | ENABLED);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(try_ioctl(self->vm.fd, KVM_SIGNAL_MSI, (unsigned long)&msi), 1);
		/* In the handler. The offer is made, and taken back, at each entry and exit. */
		vcpu_run_to_port(&self->vcpu, PORT_SYNC);
		EXPECT_TRUE(is_in_service(&self->vcpu));
		if (i)
			ASSERT_EQ(replace(self, mem[i]), 0);
		vcpu_run_to_port(&self->vcpu, PORT_SYNC);
		EXPECT_EQ(vcpu_regs(&self->vcpu).rbx, 1);
		EXPECT_FALSE(is_in_service(&self->vcpu));
		EXPECT_EQ(mem[i][EOI_AT], 0);
		vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	}

	/* Where the memory goes while the guest has the offer, the interrupt counts as ended. */
	ASSERT_EQ(try_ioctl(self->vm.fd, KVM_SIGNAL_MSI, (unsigned long)&msi), 1);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	ASSERT_EQ(set_slot(self, 0, ELSEWHERE, self->a), 0);
	self->a[EOI_AT] = 0x5e;
	EXPECT_TRUE(is_in_service(&self->vcpu));
	EXPECT_EQ(self->a[EOI_AT], 0x5e);
}

static uint8_t lapic_tpr(struct vcpu *vcpu)
{
	struct kvm_lapic_state lapic;

	xioctl(vcpu->fd, KVM_GET_LAPIC, &lapic);
	return lapic.regs[0x80];
}

TEST_F(places, the_task_priority_follows_the_slot)
{
	struct kvm_vapic_addr address = { .vapic_addr = AREA_GPA + VAPIC_AT };

	vm_load(&self->vm, CODE_GPA, patched);
	xioctl(self->vcpu.fd, KVM_SET_VAPIC_ADDR, &address);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	EXPECT_EQ(lapic_tpr(&self->vcpu), 0x50);
	ASSERT_EQ(replace(self, self->b), 0);
	self->a[VAPIC_AT] = 0x20;
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rbx & 0xff, 0x50);
	EXPECT_EQ(self->b[VAPIC_AT], 0x50);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	EXPECT_EQ(lapic_tpr(&self->vcpu), 0x70);
	EXPECT_EQ(self->a[VAPIC_AT], 0x20);
}

/* Where a client says so, each time, and not only when the guest runs. */
TEST_F(places, the_wall_clock_is_told_at_once)
{
	static const uint64_t places[] = { 0x100, 0x1100 };
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entries[2];
	} msrs = {
		.head.nmsrs = 2,
		.entries = {
			{ .index = MSR_WALL_CLOCK, .data = AREA_GPA + places[0] },
			{ .index = MSR_WALL_CLOCK, .data = AREA_GPA + places[1] },
		},
	};
	unsigned int i;

	ASSERT_EQ(xioctl(self->vcpu.fd, KVM_SET_MSRS, &msrs), 2);
	for (i = 0; i < 2; i++) {
		const uint32_t *clock = (const uint32_t *)(self->a + places[i]);

		/* Its version, even if whole, and seconds since 1970. */
		EXPECT_NE(clock[0], 0);
		EXPECT_EQ(clock[0] & 1, 0);
		EXPECT_GT(clock[1], 1600000000);
	}
}

TEST_HARNESS_MAIN
