// SPDX-License-Identifier: GPL-2.0
/*
 * Documentation/abi.rst says which ioctls and capabilities there are, in
 * csv-tables of: name, kind, number, status.
 *
 *   kind    system, vm or vcpu (an ioctl of that fd), or capability
 *   number  of the ioctl (as in strace: 0xae00) or the capability
 *   status  yes or no, or "cpu" for a capability that depends on the CPU
 *
 * It is held against the uapi headers and against what the module answers. An
 * ioctl or capability that the module knows and the table does not list fails.
 *
 * The file is abi.rst beside this program, or what KVM_RS_ABI names (then any
 * device is held against it). With --print the rows for the device are printed
 * instead, as a start of the table.
 */
#include "kselftest_harness.h"
#include "vm.h"

#define MAX_ENTRIES	1024

enum kind { SYSTEM, VM, VCPU, CAPABILITY };
static const char * const kinds[] = { "system", "vm", "vcpu", "capability" };

/* Names of the uapi headers, made at build time: X(name). */
static const struct {
	const char *name;
	unsigned long number;
} uapi_ioctls[] = {
#define X(name)	{ #name, name },
#include "uapi_ioctls.h"
}, uapi_capabilities[] = {
#include "uapi_capabilities.h"
#undef X
};

struct entry {
	char name[64];
	enum kind kind;
	unsigned long number;
	bool yes, cpu;
};

static struct entry entries[MAX_ENTRIES];
static unsigned int nr_entries;
static char default_path[512];

static struct device {
	struct vm vm;
	int vcpu;
	long unknown[3];	/* the answer to an ioctl that is nowhere */
} device;

static void device_start(void)
{
	static struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };

	vm_create_empty(&device.vm);
	/* Some vCPU ioctls want an APIC in the kernel. */
	if (try_ioctl(device.vm.fd, KVM_CREATE_IRQCHIP, 0))
		try_ioctl(device.vm.fd, KVM_ENABLE_CAP, (unsigned long)&split);
	device.vcpu = xioctl(device.vm.fd, KVM_CREATE_VCPU, 0);
	device.unknown[SYSTEM] = try_ioctl(device.vm.dev, _IO(KVMIO, 0x50), 0);
	device.unknown[VM] = try_ioctl(device.vm.fd, _IO(KVMIO, 0x50), 0);
	device.unknown[VCPU] = try_ioctl(device.vcpu, _IO(KVMIO, 0x50), 0);
}

static void device_stop(void)
{
	close(device.vcpu);
	vm_destroy(&device.vm);
}

/* Whether a kind of fd knows an ioctl: it answers other than to any number. */
static bool knows(enum kind kind, unsigned long number)
{
	int fd;
	long ret;

	fd = kind == SYSTEM ? device.vm.dev : kind == VM ? device.vm.fd : device.vcpu;
	ret = try_ioctl(fd, number, 0);
	if (ret == device.unknown[kind]) {
		static char buffer[65536];

		/* Not for lack of an argument? */
		memset(buffer, 0, sizeof(buffer));
		ret = try_ioctl(fd, number, (unsigned long)buffer);
	}
	if (ret >= 0 && (number == KVM_CREATE_VM || number == KVM_CREATE_VCPU ||
			 number == KVM_GET_STATS_FD))
		close(ret);
	return ret != device.unknown[kind];
}

static long capability(unsigned long number)
{
	long system, vm;

	system = try_ioctl(device.vm.dev, KVM_CHECK_EXTENSION, number);
	vm = try_ioctl(device.vm.fd, KVM_CHECK_EXTENSION, number);
	return vm > system ? vm : system;
}

static const char *abi_path(void)
{
	return getenv("KVM_RS_ABI") ?: default_path;
}

static char *trim(char *s)
{
	char *end = s + strlen(s);

	while (end > s && (end[-1] == ' ' || end[-1] == '\n' || end[-1] == '"'))
		*--end = 0;
	while (*s == ' ' || *s == '"')
		s++;
	return s;
}

/* Reads the rows; returns a complaint or NULL. */
static const char *parse(void)
{
	static char complaint[300], line[512];
	FILE *f = fopen(abi_path(), "r");
	unsigned int n = 0, i;

	if (!f)
		return "cannot be opened";
	nr_entries = 0;
	while (fgets(line, sizeof(line), f)) {
		struct entry *e = &entries[nr_entries];
		char *field[5], *rest = line, *end;

		n++;
		for (i = 0; i < 5; i++) {
			field[i] = strsep(&rest, ",");
			if (!field[i])
				break;
			field[i] = trim(field[i]);
		}
		if (i < 4 || strncmp(field[0], "KVM_", 4) || line[0] != ' ')
			continue;
		snprintf(e->name, sizeof(e->name), "%s", field[0]);
		for (i = 0; i < 4 && strcmp(field[1], kinds[i]); i++)
			;
		e->kind = i;
		e->number = strtoul(field[2], &end, 0);
		e->yes = !strcmp(field[3], "yes");
		e->cpu = !strcmp(field[3], "cpu") && e->kind == CAPABILITY;
		if (i == 4 || *end || end == field[2] ||
		    (!e->yes && !e->cpu && strcmp(field[3], "no")) || ++nr_entries == MAX_ENTRIES) {
			snprintf(complaint, sizeof(complaint), "line %u: %s,%s,%s,%s", n,
				 field[0], field[1], field[2], field[3]);
			fclose(f);
			return complaint;
		}
	}
	fclose(f);
	return nr_entries ? NULL : "has no rows";
}

static const struct entry *listed(enum kind kind, unsigned long number)
{
	unsigned int i;

	for (i = 0; i < nr_entries; i++) {
		if (entries[i].kind == kind && entries[i].number == number)
			return &entries[i];
	}
	return NULL;
}

#define REQUIRE_TABLE()							\
	do {								\
		const char *complaint;					\
									\
		if (access(abi_path(), R_OK))				\
			SKIP(return, "no %s", abi_path());		\
		complaint = parse();					\
		ASSERT_EQ(complaint, NULL)				\
			TH_LOG("%s %s", abi_path(), complaint);		\
	} while (0)
#define REQUIRE_DEVICE()						\
	do {								\
		if (!getenv("KVM_RS_ABI") && !device_is_kvm_rs())	\
			SKIP(return, "the table is not of this device");\
	} while (0)

/* Numbers and names are those of the headers, and each row stands once. */
TEST(table_is_sound)
{
	unsigned int i, k;

	REQUIRE_TABLE();
	for (i = 0; i < nr_entries; i++) {
		const struct entry *e = &entries[i];
		bool found = false;

		for (k = 0; e->kind == CAPABILITY && k < ARRAY_SIZE(uapi_capabilities); k++)
			found |= !strcmp(uapi_capabilities[k].name, e->name) &&
				 uapi_capabilities[k].number == e->number;
		for (k = 0; e->kind != CAPABILITY && k < ARRAY_SIZE(uapi_ioctls); k++)
			found |= !strcmp(uapi_ioctls[k].name, e->name) &&
				 uapi_ioctls[k].number == e->number;
		EXPECT_EQ(found, true)
			TH_LOG("%s %#lx is not in the headers", e->name, e->number);
		EXPECT_EQ(listed(e->kind, e->number), e)
			TH_LOG("%s %s stands twice", e->name, kinds[e->kind]);
	}
}

TEST(ioctls)
{
	unsigned int i, k, n = 0;

	REQUIRE_TABLE();
	REQUIRE_DEVICE();
	for (k = SYSTEM; k <= VCPU; k++) {
		device_start();
		for (i = 0; i < ARRAY_SIZE(uapi_ioctls); i++) {
			const struct entry *e = listed(k, uapi_ioctls[i].number);
			bool there = knows(k, uapi_ioctls[i].number);

			n += there;
			EXPECT_EQ(there, e && e->yes)
				TH_LOG("%s on the %s fd: %s in the module, %s in the table",
				       uapi_ioctls[i].name, kinds[k],
				       there ? "there" : "not there",
				       !e ? "not listed" : e->yes ? "yes" : "no");
		}
		device_stop();
	}
	EXPECT_GT(n, 20);
}

TEST(capabilities)
{
	unsigned int i, n = 0;

	REQUIRE_TABLE();
	REQUIRE_DEVICE();
	device_start();
	for (i = 0; i < 1024; i++) {
		const struct entry *e = listed(CAPABILITY, i);
		long value = capability(i);

		n += value != 0;
		EXPECT_GE(value, 0);
		if (e && e->cpu)
			continue;
		EXPECT_EQ(value > 0, e && e->yes)
			TH_LOG("capability %u (%s) is %ld, %s in the table", i,
			       e ? e->name : "?", value,
			       !e ? "not listed" : e->yes ? "yes" : "no");
	}
	device_stop();
	EXPECT_GT(n, 3);
}

static void print_table(void)
{
	unsigned int i, k;

	for (k = SYSTEM; k <= VCPU; k++) {
		device_start();
		for (i = 0; i < ARRAY_SIZE(uapi_ioctls); i++) {
			if (knows(k, uapi_ioctls[i].number))
				printf("   %s, %s, %#lx, yes\n", uapi_ioctls[i].name,
				       kinds[k], uapi_ioctls[i].number);
		}
		device_stop();
	}
	device_start();
	for (i = 0; i < ARRAY_SIZE(uapi_capabilities); i++) {
		if (capability(uapi_capabilities[i].number))
			printf("   %s, capability, %lu, yes\n", uapi_capabilities[i].name,
			       uapi_capabilities[i].number);
	}
	device_stop();
}

int main(int argc, char **argv)
{
	char *slash;

	snprintf(default_path, sizeof(default_path) - 16, "%s", argv[0]);
	slash = strrchr(default_path, '/');
	strcpy(slash ? slash + 1 : default_path, "abi.rst");
	if (argc > 1 && !strcmp(argv[1], "--print")) {
		print_table();
		return 0;
	}
	return test_harness_run(argc, argv);
}
