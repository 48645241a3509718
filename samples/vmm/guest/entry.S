/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Where the guest starts: in long mode, memory mapped one to one, a stack set up, the size of
 * memory in RDI. No IDT: an exception ends the machine.
 */

	.section .text.start, "ax"
	.globl	_start
_start:
	call	guest_main

	/* guest_main() ends the machine; should it return, halt. */
1:	hlt
	jmp	1b

	.section .note.GNU-stack, "", @progbits
