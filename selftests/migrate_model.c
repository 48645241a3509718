// SPDX-License-Identifier: GPL-2.0
/*
 * One leg of a guest's way over several machines: it goes on from the state in
 * a file, or starts if there is none, and leaves as hexadecimal digits on standard
 * output, in lines that begin with "state: ". scripts/check takes them to the next
 * machine. Meanwhile it makes its reports, each of them checked (lib/checksum.h),
 * and again and again goes on in a new VM, after its own was destroyed.
 *
 *   migrate_model [FILE]
 *
 * The guest has the CPUID of the machine that it started on; where that has
 * what this one does not, the program ends with status 4.
 */
#include "checksum.h"
#include "state.h"

#define STEPS		256
/* Over three machines, a thousand. */
#define STOPS		334
#define SKIP		4

/* All of the guest. */
static struct {
	struct checksum sum;
	struct state state;
	char mem[CHECKSUM_MEMORY];
} guest;

static void read_guest(const char *path)
{
	FILE *file = fopen(path, "r");

	if (!file || fread(&guest, sizeof(guest), 1, file) != 1)
		die("%s: %s", path, strerror(errno));
	fclose(file);
}

static void write_guest(void)
{
	const unsigned char *p = (const unsigned char *)&guest;
	size_t i, k;

	for (i = 0; i < sizeof(guest); i += k) {
		fputs("state: ", stdout);
		for (k = 0; k < 1024 && i + k < sizeof(guest); k++) {
			putchar_unlocked("0123456789abcdef"[p[i + k] >> 4]);
			putchar_unlocked("0123456789abcdef"[p[i + k] & 15]);
		}
		putchar_unlocked('\n');
	}
}

static const struct kvm_cpuid_entry2 *find(const struct kvm_cpuid2 *cpuid,
					   const struct kvm_cpuid_entry2 *like)
{
	unsigned int i;

	for (i = 0; i < cpuid->nent; i++)
		if (cpuid->entries[i].function == like->function &&
		    cpuid->entries[i].index == like->index)
			return &cpuid->entries[i];
	return NULL;
}

/* Whether the CPU and the device have every feature that the guest was given. */
static bool features_are_there(struct vm *vm)
{
	static struct {
		struct kvm_cpuid2 header;
		struct kvm_cpuid_entry2 entries[STATE_CPUID];
	} here;
	static const struct kvm_cpuid_entry2 none;
	bool there = true;
	unsigned int i;

	here.header.nent = STATE_CPUID;
	xioctl(vm->dev, KVM_GET_SUPPORTED_CPUID, &here);
	for (i = 0; i < guest.state.cpuid.header.nent; i++) {
		const struct kvm_cpuid_entry2 *want = &guest.state.cpuid.entries[i];
		const struct kvm_cpuid_entry2 *have = find(&here.header, want) ?: &none;
		uint32_t lacks[4] = {
			want->eax & ~have->eax, want->ebx & ~have->ebx,
			want->ecx & ~have->ecx, want->edx & ~have->edx,
		};

		/* What of a leaf is not a feature, or follows from the guest's own registers. */
		if (want->function == 1) {
			lacks[0] = lacks[1] = 0;
			lacks[2] &= ~(1 << 27);
		} else if (want->function == 7 && !want->index) {
			lacks[0] = 0;
		} else if (want->function == 0x80000001) {
			lacks[0] = lacks[1] = 0;
		} else if (want->function == 0xd && want->index < 2) {
			lacks[1] = lacks[2] = 0;
		} else if (want->function != 0x40000001) {
			continue;
		}
		if (lacks[0] | lacks[1] | lacks[2] | lacks[3]) {
			printf("# leaf %#x.%u lacks %#x %#x %#x %#x\n", want->function,
			       want->index, lacks[0], lacks[1], lacks[2], lacks[3]);
			there = false;
		}
	}
	return there;
}

/* Saves the guest, destroys its VM and goes on in another one. */
static void move_on(struct vm *vm, struct vcpu *vcpu)
{
	struct vm old = *vm;

	state_save(vcpu, &guest.state, guest.state.apic);
	memcpy(guest.mem, vm->mem, sizeof(guest.mem));
	vcpu_destroy(vcpu);
	vm_destroy(&old);
	vm_create_empty(vm);
	if (guest.state.apic && !vm_enable_apic(vm))
		die("no local APIC");
	checksum_copy_memory(vm, guest.mem);
	if (state_restore(vcpu, vm, &guest.state, true))
		die("MSRs cannot be set");
}

int main(int argc, char **argv)
{
	struct vcpu vcpu;
	struct vm vm;
	unsigned int i;

	if (argc < 2) {
		vm_create(&vm, CHECKSUM_MEMORY);
		guest.state.apic = vm_enable_apic(&vm);
		vcpu_create(&vcpu, &vm, 0);
		vcpu_set_supported_cpuid(&vcpu);
		checksum_start(&guest.sum, &vcpu, 4711, STEPS, guest.state.apic);
	} else {
		read_guest(argv[1]);
		vm_create_empty(&vm);
		if (!features_are_there(&vm))
			return SKIP;
		if (guest.state.apic && !vm_enable_apic(&vm))
			die("no local APIC");
		checksum_copy_memory(&vm, guest.mem);
		if (state_restore(&vcpu, &vm, &guest.state, true))
			die("MSRs cannot be set");
	}
	for (i = 0; i < STOPS; i++) {
		if (!checksum_run(&guest.sum, &vcpu, i % 3 == 0))
			die("the guest's sum is wrong at stop %u", i);
		move_on(&vm, &vcpu);
	}
	printf("# %lu reports, %lu NMIs\n", guest.sum.reports, guest.sum.nmis);
	state_save(&vcpu, &guest.state, guest.state.apic);
	memcpy(guest.mem, vm.mem, sizeof(guest.mem));
	write_guest();
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
	return 0;
}
