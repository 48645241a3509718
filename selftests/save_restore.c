// SPDX-License-Identifier: GPL-2.0
/*
 * All of a running guest is saved, its VM destroyed and a new one goes on from
 * what was saved, round after round. The guest's checksum of its registers and
 * memory must come out as if nothing had happened, and what is saved after a
 * restore must be what was saved before.
 */
#include "kselftest_harness.h"
#include "vm.h"

#define ROUNDS		40
#define MAX_MSRS	512

/*
 * A generator in registers (%rax, %r8-%r15, %xmm0, an x87 register, %dr0,
 * LSTAR, %gs base behind SWAPGS) and 512 words of memory, which all go into
 * the sum in %rax. Reports every 256 steps.
 */
GUEST_CODE(checksum, 64,
	"	fninit\n"
	"	fld1\n"
	"	sti\n"
	"1:	movl $256, %ecx\n"
	"2:	movq %rax, %rdx\n"
	"	shlq $13, %rdx\n"
	"	xorq %rdx, %rax\n"
	"	movq %rax, %rdx\n"
	"	shrq $7, %rdx\n"
	"	xorq %rdx, %rax\n"
	"	movq %rax, %rdx\n"
	"	shlq $17, %rdx\n"
	"	xorq %rdx, %rax\n"
	"	movq %rcx, %rbx\n"
	"	andl $511, %ebx\n"
	"	addq %rax, %fs:(,%rbx,8)\n"
	"	addq %fs:8, %rax\n"
	"	movq %rax, %xmm1\n"
	"	paddq %xmm1, %xmm0\n"
	"	decl %ecx\n"
	"	jnz 2b\n"
	/* The x87 register counts the reports. */
	"	fld1\n"
	"	faddp\n"
	"	fld %st(0)\n"
	"	fistpll 0x118000\n"
	"	addq 0x118000, %rax\n"
	"	movq %xmm0, %rdx\n"
	"	xorq %rdx, %rax\n"
	"	movq %db0, %rdx\n"
	"	addq %rdx, %rax\n"
	"	movq %rax, %db0\n"
	/* LSTAR, an address: 31 bits of it. */
	"	movq %rax, %rbx\n"
	"	movl $0xc0000082, %ecx\n"
	"	rdmsr\n"
	"	addl %eax, %ebx\n"
	"	movl %ebx, %eax\n"
	"	andl $0x7fffffff, %eax\n"
	"	xorl %edx, %edx\n"
	"	wrmsr\n"
	"	swapgs\n"
	"	movq %rbx, %rax\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	jmp 1b\n");

/* The same on the client's side. */
struct model {
	uint64_t rax, xmm0, dr0, lstar, reports, mem[512];
};

static void model_run(struct model *m)
{
	unsigned int ecx;
	uint64_t rbx;

	for (ecx = 256; ecx; ecx--) {
		m->rax ^= m->rax << 13;
		m->rax ^= m->rax >> 7;
		m->rax ^= m->rax << 17;
		m->mem[ecx & 511] += m->rax;
		m->rax += m->mem[1];
		m->xmm0 += m->rax;
	}
	m->reports++;
	m->rax += m->reports + 1;
	m->rax ^= m->xmm0;
	m->rax += m->dr0;
	m->dr0 = m->rax;
	rbx = (uint32_t)(m->rax + m->lstar);
	m->lstar = rbx & 0x7fffffff;
	m->rax = rbx;
}

struct saved {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_sregs2 sregs2;
	struct kvm_vcpu_events events;
	struct kvm_debugregs debugregs;
	struct kvm_mp_state mp_state;
	struct kvm_xcrs xcrs;
	struct kvm_lapic_state lapic;
	struct {
		struct kvm_msrs header;
		struct kvm_msr_entry entries[MAX_MSRS];
	} msrs;
	unsigned int xsave_size;
	char xsave[65536] __attribute__((aligned(64)));
};

static unsigned int msr_list(struct vm *vm, uint32_t *indices)
{
	struct {
		struct kvm_msr_list header;
		uint32_t indices[MAX_MSRS];
	} list = { .header.nmsrs = MAX_MSRS };

	xioctl(vm->dev, KVM_GET_MSR_INDEX_LIST, &list);
	memcpy(indices, list.indices, list.header.nmsrs * sizeof(*indices));
	return list.header.nmsrs;
}

/* Returns how many MSRs could be read of those that there are. */
static int save(struct vcpu *vcpu, struct saved *s, unsigned int *msrs)
{
	uint32_t indices[MAX_MSRS];
	unsigned int i;

	memset(s, 0, sizeof(*s));
	*msrs = msr_list(vcpu->vm, indices);
	s->msrs.header.nmsrs = *msrs;
	for (i = 0; i < *msrs; i++)
		s->msrs.entries[i].index = indices[i];
	xioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &s->events);
	xioctl(vcpu->fd, KVM_GET_MP_STATE, &s->mp_state);
	xioctl(vcpu->fd, KVM_GET_REGS, &s->regs);
	s->xsave_size = xioctl(vcpu->vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
	if (s->xsave_size > sizeof(s->xsave))
		die("KVM_CAP_XSAVE2: %u", s->xsave_size);
	xioctl(vcpu->fd, KVM_GET_XSAVE2, s->xsave);
	try_ioctl(vcpu->fd, KVM_GET_XCRS, (unsigned long)&s->xcrs);
	xioctl(vcpu->fd, KVM_GET_SREGS, &s->sregs);
	xioctl(vcpu->fd, KVM_GET_SREGS2, &s->sregs2);
	xioctl(vcpu->fd, KVM_GET_DEBUGREGS, &s->debugregs);
	return xioctl(vcpu->fd, KVM_GET_MSRS, &s->msrs);
}

/*
 * Returns how many MSRs were refused, but for those that are 0: an MSR may be
 * read as 0 that the vCPU does not have.
 */
static int restore_msrs(struct vcpu *vcpu, const struct saved *s)
{
	struct {
		struct kvm_msrs header;
		struct kvm_msr_entry entry;
	} one = { .header.nmsrs = 1 };
	unsigned int i, refused = 0;

	for (i = 0; i < s->msrs.header.nmsrs; i++) {
		one.entry = s->msrs.entries[i];
		if (xioctl(vcpu->fd, KVM_SET_MSRS, &one) != 1 && one.entry.data)
			refused++;
	}
	return refused;
}

static int restore(struct vcpu *vcpu, struct saved *s, bool new_sregs)
{
	int ret;

	if (new_sregs)
		xioctl(vcpu->fd, KVM_SET_SREGS2, &s->sregs2);
	else
		xioctl(vcpu->fd, KVM_SET_SREGS, &s->sregs);
	ret = restore_msrs(vcpu, s);
	if (s->xcrs.nr_xcrs)
		xioctl(vcpu->fd, KVM_SET_XCRS, &s->xcrs);
	xioctl(vcpu->fd, KVM_SET_XSAVE, s->xsave);
	xioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &s->events);
	xioctl(vcpu->fd, KVM_SET_MP_STATE, &s->mp_state);
	xioctl(vcpu->fd, KVM_SET_DEBUGREGS, &s->debugregs);
	xioctl(vcpu->fd, KVM_SET_REGS, &s->regs);
	return ret;
}

/* What must not change between two times of saving; the TSC goes on. */
static bool same(const struct saved *a, const struct saved *b)
{
	unsigned int i;

	if (memcmp(&a->regs, &b->regs, sizeof(a->regs)) ||
	    memcmp(&a->sregs, &b->sregs, sizeof(a->sregs)) ||
	    memcmp(&a->sregs2, &b->sregs2, sizeof(a->sregs2)) ||
	    memcmp(&a->events, &b->events, sizeof(a->events)) ||
	    memcmp(&a->debugregs, &b->debugregs, sizeof(a->debugregs)) ||
	    memcmp(&a->xcrs, &b->xcrs, sizeof(a->xcrs)) ||
	    memcmp(a->xsave, b->xsave, a->xsave_size))
		return false;
	for (i = 0; i < a->msrs.header.nmsrs; i++)
		if (a->msrs.entries[i].index != 0x10 &&
		    a->msrs.entries[i].data != b->msrs.entries[i].data)
			return false;
	return true;
}

static void check_mode(struct __test_metadata *_metadata, bool new_sregs)
{
	static struct saved saved, again;
	static char memory[VM_MEMORY];
	struct model model = { .rax = 4711 };
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	struct vcpu vcpu;
	unsigned int i, msrs;
	struct vm vm;

	vm_create(&vm, VM_MEMORY);
	vcpu_start(&vcpu, &vm, MODE_LONG);
	vm_load(&vm, CODE_GPA, checksum);
	sregs = vcpu_sregs(&vcpu);
	sregs.fs.base = DATA_GPA;
	sregs.gs.base = 0x1234000;
	vcpu_set_sregs(&vcpu, &sregs);
	regs = vcpu_regs(&vcpu);
	regs.rax = model.rax;
	vcpu_set_regs(&vcpu, &regs);

	for (i = 0; i < ROUNDS; i++) {
		vcpu_run_to_port(&vcpu, PORT_SYNC);
		vcpu_complete(&vcpu);
		model_run(&model);
		ASSERT_EQ(save(&vcpu, &saved, &msrs), (int)msrs);
		EXPECT_EQ(saved.regs.rax, model.rax) TH_LOG("round %u", i);
		EXPECT_EQ(saved.debugregs.db[0], model.dr0);
		EXPECT_EQ(saved.sregs.gs.base, i & 1 ? 0x1234000 : 0);
		ASSERT_EQ(memcmp(vm.mem + DATA_GPA, model.mem, sizeof(model.mem)), 0);
		memcpy(memory, vm.mem, sizeof(memory));
		vcpu_destroy(&vcpu);
		vm_destroy(&vm);

		vm_create(&vm, VM_MEMORY);
		memcpy(vm.mem, memory, sizeof(memory));
		vcpu_create(&vcpu, &vm, 0);
		vcpu_set_supported_cpuid(&vcpu);
		ASSERT_EQ(restore(&vcpu, &saved, new_sregs), 0);
		ASSERT_EQ(save(&vcpu, &again, &msrs), (int)msrs);
		ASSERT_EQ(same(&saved, &again), true) TH_LOG("round %u", i);
	}
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

TEST(sregs)
{
	check_mode(_metadata, false);
}

TEST(sregs2)
{
	check_mode(_metadata, true);
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
