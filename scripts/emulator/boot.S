/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The option ROM that starts a kernel in the emulated machine.
 *
 * The emulator has already put the kernel, the initramfs and the parameter block
 * (scripts/emulator/machine.py: boot_params, page tables, GDT) into memory. The
 * BIOS calls this ROM in real mode once the machine is set up. What is left to do
 * is to ask the BIOS for its memory map and to enter the kernel by the 64-bit boot
 * protocol, whose entry point stands at the end of the parameter block's first
 * page of its own.
 */

#define PARAMETERS	0x200000	/* boot_params */
#define PAGE_TABLES	0x202000	/* PML4, maps 4 GiB one to one */
#define HANDOVER	0x201ff0	/* GDT pointer (10 bytes) below, entry here */
#define GDT_POINTER	0x201fe0
#define E820_ENTRIES	0x1e8
#define E820_TABLE	0x2d0
#define E820_MAX	128
#define E820_SIZE	20
#define BUFFER		0x8000		/* of one E820 entry, in real mode */

#define CODE32		0x08
#define BOOT_CS		0x10
#define BOOT_DS		0x18

	.code16
	.globl	_start
_start:
	.byte	0x55, 0xaa, 4		/* signature, length in 512-byte blocks */
	cli
	cld
	xor	%ax, %ax
	mov	%ax, %ss
	mov	$0x7c00, %sp
	mov	%ax, %es
	mov	$BUFFER, %di
	xor	%ebx, %ebx
	xor	%bp, %bp		/* entries so far */

1:	mov	$0xe820, %eax
	mov	$E820_SIZE, %ecx
	mov	$0x534d4150, %edx	/* "SMAP" */
	int	$0x15
	jc	2f
	inc	%bp
	add	$E820_SIZE, %di
	test	%ebx, %ebx
	jz	2f
	cmp	$E820_MAX, %bp
	jb	1b

2:	cli
	in	$0x92, %al		/* A20 */
	or	$2, %al
	out	%al, $0x92
	mov	$0xff, %al		/* no interrupt before the kernel wants one */
	out	%al, $0x21
	out	%al, $0xa1
	lgdtl	%cs:(rom_gdt_pointer - _start)
	mov	%cr0, %eax
	or	$1, %eax
	mov	%eax, %cr0
	ljmpl	$CODE32, $(0xc0000 + protected - _start)

	.code32
protected:
	mov	$BOOT_DS, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	movzwl	%bp, %eax
	movb	%al, PARAMETERS + E820_ENTRIES
	imul	$E820_SIZE, %eax, %ecx
	mov	$BUFFER, %esi
	mov	$(PARAMETERS + E820_TABLE), %edi
	rep movsb

	mov	%cr4, %eax
	or	$(1 << 5), %eax		/* PAE */
	mov	%eax, %cr4
	mov	$PAGE_TABLES, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx	/* EFER */
	rdmsr
	or	$(1 << 8), %eax		/* LME */
	wrmsr
	mov	%cr0, %eax
	or	$(1 << 31), %eax	/* PG */
	mov	%eax, %cr0
	lgdt	GDT_POINTER
	ljmp	$BOOT_CS, $(0xc0000 + long_mode - _start)

	.code64
long_mode:
	mov	$BOOT_DS, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	xor	%eax, %eax
	mov	%eax, %fs
	mov	%eax, %gs
	mov	$PARAMETERS, %esi
	xor	%ebp, %ebp
	xor	%edi, %edi
	xor	%ebx, %ebx
	mov	HANDOVER, %eax
	jmp	*%rax

	.balign	8
rom_gdt:
	.quad	0
	.quad	0x00cf9b000000ffff	/* 32-bit code */
	.quad	0x00af9b000000ffff	/* 64-bit code */
	.quad	0x00cf93000000ffff	/* data */
rom_gdt_pointer:
	.word	rom_gdt_pointer - rom_gdt - 1
	.long	0xc0000 + rom_gdt - _start
