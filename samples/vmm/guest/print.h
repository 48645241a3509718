/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Output on the serial port.
 */
#ifndef GUEST_PRINT_H
#define GUEST_PRINT_H

#include <stdint.h>

/* Prints a string; a newline also returns the carriage. */
void print(const char *text);

/* Prints a number in decimal. */
void print_number(uint64_t number);

/* Prints a number in hexadecimal, with all of its @digits digits. */
void print_hex(uint64_t number, unsigned int digits);

#endif
