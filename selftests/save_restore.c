// SPDX-License-Identifier: GPL-2.0
/*
 * All of a running guest is saved, its VM destroyed and a new one goes on from
 * what was saved, round after round: between two reports with an IPI pending,
 * and in the handlers of interrupts and NMIs. The guest's checksum of all its
 * state (lib/checksum.h) must come out as if nothing had happened, and what is
 * saved after a restore must be what was saved before.
 */
#include "kselftest_harness.h"
#include "checksum.h"
#include "state.h"

#define STEPS		64
#define ROUNDS		1000

/*
 * A kernel that looks for mistakes needs twenty times as long, three times of it
 * for the files in debugfs that come and go with a VM. There, only the guest that
 * has more state is moved so often.
 */
static unsigned int rounds(bool apic)
{
	return apic || access("/proc/lockdep", F_OK) ? ROUNDS : ROUNDS / 10;
}

static void move(struct __test_metadata *_metadata, bool apic, bool sregs2)
{
	static struct state saved, again;
	struct vm vm, next;
	struct vcpu vcpu;
	struct checksum sum;
	unsigned int i;

	vm_create(&vm, CHECKSUM_MEMORY);
	if (apic && !vm_enable_apic(&vm))
		SKIP(return, "no local APIC");
	vcpu_create(&vcpu, &vm, 0);
	vcpu_set_supported_cpuid(&vcpu);
	checksum_start(&sum, &vcpu, 4711, STEPS, apic);

	for (i = 0; i < rounds(apic); i++) {
		ASSERT_EQ(checksum_run(&sum, &vcpu, i % 3 == 0), true) TH_LOG("round %u", i);
		ASSERT_EQ(state_save(&vcpu, &saved, apic), 0);
		vcpu_destroy(&vcpu);
		next = vm;
		next.mem = NULL;
		vm_destroy(&next);

		vm_create_empty(&next);
		if (apic)
			vm_enable_apic(&next);
		checksum_copy_memory(&next, vm.mem);
		munmap(vm.mem, vm.size);
		vm = next;
		ASSERT_EQ(state_restore(&vcpu, &vm, &saved, sregs2), 0);
		if (i % 8 == 0) {
			state_save(&vcpu, &again, apic);
			ASSERT_EQ(state_same(&saved, &again), true) TH_LOG("round %u", i);
		}
	}
	TH_LOG("%lu reports, %lu NMIs", sum.reports, sum.nmis);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

TEST(sregs)
{
	move(_metadata, false, false);
}

TEST(sregs2_and_apic)
{
	move(_metadata, true, true);
}

GUEST_CODE(loop32, 32,
	"1:	incl %eax\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	jmp 1b\n");

/* The PDPTEs of a guest with PAE paging are saved, not read from memory again. */
TEST(pdptes)
{
	struct kvm_sregs2 sregs2 = {}, other;
	struct kvm_regs regs;
	struct vcpu vcpu;
	struct vm vm;

	vm_create(&vm, VM_MEMORY);
	vcpu_start(&vcpu, &vm, MODE_PAE);
	vm_load(&vm, CODE_GPA, loop32);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	vcpu_complete(&vcpu);
	xioctl(vcpu.fd, KVM_GET_SREGS2, &sregs2);
	EXPECT_EQ(sregs2.flags, KVM_SREGS2_FLAGS_PDPTRS_VALID);
	EXPECT_EQ(sregs2.pdptrs[0], *vm_u64(&vm, PAE_PT_GPA));
	*vm_u64(&vm, PAE_PT_GPA) = 0;
	xioctl(vcpu.fd, KVM_SET_SREGS2, &sregs2);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	vcpu_complete(&vcpu);
	regs = vcpu_regs(&vcpu);
	EXPECT_EQ((uint8_t)regs.rax, 2);

	other = sregs2;
	other.flags = 2;
	EXPECT_EQ(try_ioctl(vcpu.fd, KVM_SET_SREGS2, (unsigned long)&other), -EINVAL);
	other = sregs2;
	other.cr0 &= ~(1UL << 31);
	EXPECT_EQ(try_ioctl(vcpu.fd, KVM_SET_SREGS2, (unsigned long)&other), -EINVAL);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

TEST_HARNESS_MAIN
