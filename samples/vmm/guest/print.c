// SPDX-License-Identifier: GPL-2.0

#include "machine.h"
#include "print.h"

static void print_char(char c)
{
	while (!(inb(SERIAL_STATUS) & SERIAL_READY))
		;
	outb(SERIAL_DATA, c);
}

void print(const char *text)
{
	for (; *text; text++) {
		if (*text == '\n')
			print_char('\r');
		print_char(*text);
	}
}

void print_number(uint64_t number)
{
	char digits[21];
	char *first = &digits[sizeof(digits) - 1];

	*first = '\0';
	do {
		*--first = '0' + number % 10;
		number /= 10;
	} while (number);
	print(first);
}

void print_hex(uint64_t number, unsigned int digits)
{
	print("0x");
	while (digits--)
		print_char("0123456789abcdef"[number >> (digits * 4) & 0xf]);
}
