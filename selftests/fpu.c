// SPDX-License-Identifier: GPL-2.0
/*
 * The guest's FPU, SSE and AVX registers and the client's own are two worlds:
 * each survives the other, over exits and over other vCPUs of the same thread.
 */
#include <cpuid.h>

#include "irq.h"
#include "kselftest_harness.h"

#define ROUNDS	50

/*
 * The guest fills its registers from 512 bytes at DATA_GPA, and between two
 * exits always stores them to DATA_GPA + 0x1000 and clears nothing.
 */
#define EACH16(m)	m(0) m(1) m(2) m(3) m(4) m(5) m(6) m(7) m(8) m(9)	\
			m(10) m(11) m(12) m(13) m(14) m(15)
#define LOAD_X(n)	"movdqu 0x100000 + " #n " * 32, %xmm" #n "\n"
#define STORE_X(n)	"movdqu %xmm" #n ", 0x101000 + " #n " * 32\n"
#define LOAD_Y(n)	"vmovdqu 0x100000 + " #n " * 32, %ymm" #n "\n"
#define STORE_Y(n)	"vmovdqu %ymm" #n ", 0x101000 + " #n " * 32\n"
#define CONTROL								\
	"	fninit\n"						\
	"	fldcw 0x102000\n"					\
	"	ldmxcsr 0x102004\n"					\
	"	fldpi\n"						\
	"	fldl2e\n"
#define STORE_CONTROL							\
	"	fnstcw 0x103000\n"					\
	"	stmxcsr 0x103004\n"					\
	"	fnsave 0x103040\n"					\
	"	frstor 0x103040\n"

GUEST_CODE(sse, 64,
	CONTROL EACH16(LOAD_X)
	"1:	outb %al, $" STR(PORT_SYNC) "\n"
	EACH16(STORE_X) STORE_CONTROL
	"	jmp 1b\n");
GUEST_CODE(avx, 64,
	"	xorl %ecx, %ecx\n"
	"	movl $7, %eax\n"
	"	xorl %edx, %edx\n"
	"	xsetbv\n"
	CONTROL EACH16(LOAD_Y)
	"1:	outb %al, $" STR(PORT_SYNC) "\n"
	EACH16(STORE_Y) STORE_CONTROL
	"	jmp 1b\n");

#define GUEST_FCW	0x0a7f		/* round up, double precision */
#define GUEST_MXCSR	0x5f80		/* round up, all masked */
#define CLIENT_FCW	0x067f		/* round down, double precision */
#define CLIENT_MXCSR	0x3f80		/* round down */

static bool have_avx(void)
{
	unsigned int a, b, c, d;

	/* OSXSAVE and AVX. */
	return __get_cpuid(1, &a, &b, &c, &d) && (c >> 27 & 3) == 3;
}

static void fill(uint8_t *p, size_t size, unsigned int seed)
{
	size_t i;

	for (i = 0; i < size; i++)
		p[i] = seed + i * 11 + (i >> 4);
}

/* Loads the client's registers, does KVM_RUN by hand, stores them. */
#define CLIENT(load, store, in, out, fd, ret)				\
	asm volatile("movq %[i], %%rbx\n"				\
		     "movq %[o], %%r12\n"				\
		     load						\
		     "movl $16, %%eax\n"				\
		     "movl %[f], %%edi\n"				\
		     "movl $0xae80, %%esi\n"				\
		     "xorl %%edx, %%edx\n"				\
		     "syscall\n"					\
		     store						\
		     : "=&a" (ret)					\
		     : [i] "r" (in), [o] "r" (out), [f] "r" (fd)	\
		     : "rbx", "rcx", "rdx", "rsi", "rdi", "r11", "r12",	\
		       "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4",	\
		       "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",	\
		       "xmm11", "xmm12", "xmm13", "xmm14", "xmm15")
#define C_LOAD_X(n)	"movdqu " #n " * 32(%%rbx), %%xmm" #n "\n"
#define C_STORE_X(n)	"movdqu %%xmm" #n ", " #n " * 32(%%r12)\n"
#define C_LOAD_Y(n)	"vmovdqu " #n " * 32(%%rbx), %%ymm" #n "\n"
#define C_STORE_Y(n)	"vmovdqu %%ymm" #n ", " #n " * 32(%%r12)\n"

static long run_with_sse(int fd, const void *in, void *out)
{
	long ret;

	CLIENT(EACH16(C_LOAD_X), EACH16(C_STORE_X), in, out, fd, ret);
	return ret;
}

static long run_with_avx(int fd, const void *in, void *out)
{
	long ret;

	CLIENT(EACH16(C_LOAD_Y), EACH16(C_STORE_Y), in, out, fd, ret);
	return ret;
}

struct guest {
	struct vm vm;
	struct vcpu vcpu;
	uint8_t registers[512];
};

static void start(struct guest *g, bool use_avx, unsigned int seed)
{
	struct kvm_sregs sregs;

	vm_create(&g->vm, VM_MEMORY);
	vcpu_start(&g->vcpu, &g->vm, MODE_LONG);
	if (use_avx) {
		sregs = vcpu_sregs(&g->vcpu);
		sregs.cr4 |= 1UL << 18;		/* OSXSAVE */
		vcpu_set_sregs(&g->vcpu, &sregs);
		vm_load(&g->vm, CODE_GPA, avx);
	} else {
		vm_load(&g->vm, CODE_GPA, sse);
	}
	fill(g->registers, sizeof(g->registers), seed);
	memcpy(g->vm.mem + DATA_GPA, g->registers, sizeof(g->registers));
	*(uint16_t *)(g->vm.mem + DATA_GPA + 0x2000) = GUEST_FCW;
	*(uint32_t *)(g->vm.mem + DATA_GPA + 0x2004) = GUEST_MXCSR;
}

static void check_guest(struct __test_metadata *_metadata, struct guest *g, bool use_avx)
{
	uint8_t *stored = (uint8_t *)g->vm.mem + DATA_GPA + 0x1000;
	uint8_t *image = (uint8_t *)g->vm.mem + DATA_GPA + 0x3040;
	static const uint8_t pi[] = {
		/* of fldpi with the rounding the guest chose: up */
		0x35, 0xc2, 0x68, 0x21, 0xa2, 0xda, 0x0f, 0xc9, 0x00, 0x40,
	};
	unsigned int i;

	for (i = 0; i < 16; i++) {
		ASSERT_EQ(memcmp(stored + i * 32, g->registers + i * 32,
				 use_avx ? 32 : 16), 0)
			TH_LOG("register %u", i);
	}
	ASSERT_EQ(*(uint16_t *)(g->vm.mem + DATA_GPA + 0x3000), GUEST_FCW);
	ASSERT_EQ(*(uint32_t *)(g->vm.mem + DATA_GPA + 0x3004), GUEST_MXCSR);
	/* ST(1) holds pi: the environment is 28 bytes, ST(0) 10. */
	ASSERT_EQ(memcmp(image + 28 + 10, pi + 0, 8), 0);
	ASSERT_EQ(memcmp(image + 28 + 10 + 8, pi + 8, 2), 0);
	memset(stored, 0, 512);
	memset(image, 0, 108);
}

static void thrash_and_check(struct __test_metadata *_metadata, bool use_avx,
			     struct guest *guests, unsigned int count)
{
	uint8_t mine[512], after[512];
	uint16_t fcw = CLIENT_FCW, fcw_after;
	uint32_t mxcsr = CLIENT_MXCSR, mxcsr_after;
	unsigned int round, i, n;
	long ret;

	for (round = 0; round < ROUNDS; round++) {
		for (i = 0; i < count; i++) {
			fill(mine, sizeof(mine), round * 3 + i + 1);
			memset(after, 0, sizeof(after));
			asm volatile("fldcw %0; ldmxcsr %1" : : "m" (fcw), "m" (mxcsr));
			ret = use_avx ? run_with_avx(guests[i].vcpu.fd, mine, after) :
					run_with_sse(guests[i].vcpu.fd, mine, after);
			asm volatile("fnstcw %0; stmxcsr %1"
				     : "=m" (fcw_after), "=m" (mxcsr_after));
			asm volatile("fninit");
			ASSERT_EQ(ret, 0);
			ASSERT_EQ(guests[i].vcpu.run->exit_reason, KVM_EXIT_IO);
			ASSERT_EQ(guests[i].vcpu.run->io.port, PORT_SYNC);
			for (n = 0; n < 16; n++) {
				ASSERT_EQ(memcmp(mine + n * 32, after + n * 32,
						 use_avx ? 32 : 16), 0)
					TH_LOG("the client's register %u", n);
			}
			ASSERT_EQ(fcw_after, CLIENT_FCW);
			ASSERT_EQ(mxcsr_after, CLIENT_MXCSR);
			if (round)
				check_guest(_metadata, &guests[i], use_avx);
		}
	}
}

static void test(struct __test_metadata *_metadata, bool use_avx, unsigned int count)
{
	struct guest guests[2];
	uint32_t mxcsr = 0x1f80;
	unsigned int i;

	for (i = 0; i < count; i++)
		start(&guests[i], use_avx, 0x40 + i * 0x55);
	thrash_and_check(_metadata, use_avx, guests, count);
	asm volatile("ldmxcsr %0" : : "m" (mxcsr));
	for (i = 0; i < count; i++) {
		vcpu_destroy(&guests[i].vcpu);
		vm_destroy(&guests[i].vm);
	}
}

TEST(sse_and_client)
{
	test(_metadata, false, 1);
}

TEST(sse_of_two_guests_and_client)
{
	test(_metadata, false, 2);
}

TEST(avx_and_client)
{
	if (!have_avx())
		SKIP(return, "no AVX");
	test(_metadata, true, 1);
}

TEST(avx_of_two_guests_and_client)
{
	if (!have_avx())
		SKIP(return, "no AVX");
	test(_metadata, true, 2);
}

/* A new vCPU starts with the state of a reset, not with anyone's leftovers. */
GUEST_CODE(first, 64,
	EACH16(STORE_X)
	"	fnstcw 0x103000\n"
	"	stmxcsr 0x103004\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

TEST(fresh_vcpu)
{
	uint8_t mine[512], after[512], *stored;
	struct guest g;
	unsigned int i;

	vm_create(&g.vm, VM_MEMORY);
	vcpu_start(&g.vcpu, &g.vm, MODE_LONG);
	vm_load(&g.vm, CODE_GPA, first);
	memset(g.vm.mem + DATA_GPA, 0xff, 0x4000);
	fill(mine, sizeof(mine), 1);
	ASSERT_EQ(run_with_sse(g.vcpu.fd, mine, after), 0);
	ASSERT_EQ(g.vcpu.run->io.port, PORT_DONE);
	stored = (uint8_t *)g.vm.mem + DATA_GPA + 0x1000;
	for (i = 0; i < 512; i++) {
		if (i % 32 < 16)
			ASSERT_EQ(stored[i], 0) TH_LOG("byte %u", i);
	}
	EXPECT_EQ(*(uint16_t *)(g.vm.mem + DATA_GPA + 0x3000), 0x37f);
	EXPECT_EQ(*(uint32_t *)(g.vm.mem + DATA_GPA + 0x3004), 0x1f80);
	vcpu_destroy(&g.vcpu);
	vm_destroy(&g.vm);
}

/* XSAVES of what XCR0 and XSS have, and XRSTORS; writes of 0 and 1 to XSS. */
GUEST_CODE(xsaves, 64,
	"	xorl %ecx, %ecx\n"
	"	movl $3, %eax\n"
	"	xorl %edx, %edx\n"
	"	xsetbv\n"
	"	leaq 7f(%rip), %rax\n"
	"	movq %rax, " REC_RESUME "\n"
	"	movl $3, %eax\n"
	"	movq $0x1234567, %rbx\n"
	"	movq %rbx, %xmm3\n"
	"	xsaves 0x100000\n"
	"	pxor %xmm3, %xmm3\n"
	"	xrstors 0x100000\n"
	"	movq %xmm3, %rbx\n"
	"	movl $0xda0, %ecx\n"
	"	xorl %eax, %eax\n"
	"	wrmsr\n"
	"	leaq 8f(%rip), %rax\n"
	"	movq %rax, " REC_RESUME "\n"
	"	movl $1, %eax\n"
	"	wrmsr\n"
	"7:	movl $0xbad, %edi\n"
	"	outb %al, $" STR(PORT_DONE) "\n"
	"8:	movl $0x600d, %edi\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

static void run_xsaves(struct __test_metadata *_metadata, bool offered)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[128];
	} cpuid = { .head.nent = 128 };
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	struct vcpu vcpu;
	bool has = false;
	struct vm vm;
	unsigned int i;

	vm_create(&vm, VM_MEMORY);
	vcpu_create(&vcpu, &vm, 0);
	xioctl(vm.dev, KVM_GET_SUPPORTED_CPUID, &cpuid);
	for (i = 0; i < cpuid.head.nent; i++) {
		struct kvm_cpuid_entry2 *e = &cpuid.entries[i];

		if (e->function != 0xd || e->index != 1)
			continue;
		has = e->eax & 8;
		if (!offered)
			e->eax &= ~8;
	}
	if (has) {
		xioctl(vcpu.fd, KVM_SET_CPUID2, &cpuid);
		vcpu_set_mode(&vcpu, MODE_LONG);
		sregs = vcpu_sregs(&vcpu);
		sregs.cr4 |= 1 << 18;
		vcpu_set_sregs(&vcpu, &sregs);
		vm_load(&vm, CODE_GPA, xsaves);
		vcpu_run_to_port(&vcpu, PORT_DONE);
		regs = vcpu_regs(&vcpu);
		EXPECT_EQ(regs.rdi, offered ? 0x600d : 0xbad);
		EXPECT_EQ(vm_record(&vm)->count, 1);
		EXPECT_EQ(vm_record(&vm)->vector, offered ? 13 : 6);
		if (offered) {
			EXPECT_EQ(regs.rbx, 0x1234567);
			/* The compacted format, with SSE at least. */
			EXPECT_EQ(*vm_u64(&vm, 0x100208) >> 63, 1);
			EXPECT_EQ(*vm_u64(&vm, 0x100200) & 2, 2);
		}
	}
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
	if (!has)
		SKIP(return, "no XSAVES");
}

TEST(guest_has_xsaves)
{
	run_xsaves(_metadata, true);
}

TEST(guest_has_no_xsaves)
{
	run_xsaves(_metadata, false);
}

/* INIT, which a vCPU takes when it runs, changes registers, but not XCR0. */
TEST(init_leaves_xcr0)
{
	struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs[0].value = 3 };
	struct kvm_lapic_state lapic;
	struct vcpu vcpu;
	struct vm vm;

	vm_create(&vm, VM_MEMORY);
	ASSERT_EQ(vm_split_irqchip(&vm, 24), 0);
	vcpu_start(&vcpu, &vm, MODE_LONG);
	if (!(vcpu_cpuid(&vcpu, 1).ecx & 1 << 26))
		SKIP(return, "no XSAVE");
	xioctl(vcpu.fd, KVM_SET_XCRS, &xcrs);
	/* kvm_intel delivers nothing to a local APIC that nobody has touched yet. */
	xioctl(vcpu.fd, KVM_GET_LAPIC, &lapic);
	xioctl(vcpu.fd, KVM_SET_LAPIC, &lapic);
	EXPECT_EQ(irq_send_msi(&vm, 0, 5 << 8), 1);
	/* No memory is at the reset vector. */
	vcpu_run(&vcpu);
	EXPECT_EQ(vcpu_sregs(&vcpu).cs.base, 0xffff0000);
	EXPECT_EQ(vcpu_sregs(&vcpu).efer, 0);
	xioctl(vcpu.fd, KVM_GET_XCRS, &xcrs);
	EXPECT_EQ(xcrs.xcrs[0].value, 3);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

TEST_HARNESS_MAIN
