// SPDX-License-Identifier: GPL-2.0
/*
 * The emulated machine's way out: kernel log, a program's output and its exit
 * status leave as frames through port 0xe9, which the emulator writes to its
 * standard output. One byte costs one tick, where the serial port's line speed
 * would cost thousands.
 *
 * A frame is 0xf9, channel, length (two bytes, little endian), data, 0. The
 * reader is scripts/emulator/machine.py.
 */

#include <linux/console.h>
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/irqflags.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/panic_notifier.h>
#include <linux/spinlock.h>
#include <linux/termios.h>
#include <linux/uaccess.h>

#include <asm/msr.h>

#define RIG_PORT	0xe9
#define RIG_SHUTDOWN	0x8900
#define RIG_START	0xf9
#define RIG_CHUNK	1024

enum rig_channel {
	RIG_HELLO,	/* the driver is there */
	RIG_LOG,	/* kernel log */
	RIG_OUTPUT,	/* standard output and error of the command */
	RIG_STATUS,	/* its exit status @ ticks since power-on; the machine stops */
	RIG_PANIC,	/* the kernel stopped */
};

static DEFINE_RAW_SPINLOCK(rig_lock);

static void rig_frame(enum rig_channel channel, const char *data, size_t length)
{
	const u8 header[] = { RIG_START, channel, length, length >> 8 };
	unsigned long flags;
	bool locked = true;

	/* A panic may have stopped the CPU that holds the lock. */
	if (oops_in_progress)
		locked = raw_spin_trylock_irqsave(&rig_lock, flags);
	else
		raw_spin_lock_irqsave(&rig_lock, flags);
	outsb(RIG_PORT, header, sizeof(header));
	outsb(RIG_PORT, data, length);
	outb(0, RIG_PORT);
	if (locked)
		raw_spin_unlock_irqrestore(&rig_lock, flags);
}

static void rig_shutdown(void)
{
	static const char word[] = "Shutdown";

	outsb(RIG_SHUTDOWN, word, sizeof(word) - 1);
}

static void rig_console_write(struct console *console, const char *text,
			      unsigned int length)
{
	rig_frame(RIG_LOG, text, length);
}

static struct console rig_console = {
	.name = "rig",
	.write = rig_console_write,
	.flags = CON_PRINTBUFFER | CON_ENABLED | CON_ANYTIME,
	.index = -1,
};

static int rig_panic(struct notifier_block *block, unsigned long event, void *text)
{
	rig_frame(RIG_PANIC, text, strlen(text));
	rig_shutdown();
	return NOTIFY_DONE;
}

static struct notifier_block rig_panic_block = {
	.notifier_call = rig_panic,
	.priority = INT_MIN,
};

static ssize_t rig_write(enum rig_channel channel, const char __user *from, size_t length)
{
	char chunk[RIG_CHUNK];
	size_t done = 0;

	while (done < length) {
		size_t size = min(length - done, sizeof(chunk));

		if (copy_from_user(chunk, from + done, size))
			return done ? done : -EFAULT;
		rig_frame(channel, chunk, size);
		done += size;
	}
	return done;
}

static ssize_t rig_write_output(struct file *file, const char __user *from,
				size_t length, loff_t *offset)
{
	return rig_write(RIG_OUTPUT, from, length);
}

static ssize_t rig_write_log(struct file *file, const char __user *from,
			     size_t length, loff_t *offset)
{
	return rig_write(RIG_LOG, from, length);
}

static ssize_t rig_write_status(struct file *file, const char __user *from,
				size_t length, loff_t *offset)
{
	char text[64];
	int size;

	length = min(length, sizeof(text) / 2);
	if (copy_from_user(text, from, length))
		return -EFAULT;
	size = length + scnprintf(text + length, sizeof(text) - length, "@%llu", rdtsc());
	rig_frame(RIG_STATUS, text, size);
	rig_shutdown();
	return length;
}

/* A program takes the output for a terminal, and so writes line by line. */
static long rig_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	struct ktermios termios = { .c_cflag = CS8 };

	if (command != TCGETS)
		return -ENOTTY;
	return copy_to_user((void __user *)argument, &termios, sizeof(struct termios)) ?
		-EFAULT : 0;
}

static const struct file_operations rig_output_fops = {
	.owner = THIS_MODULE,
	.write = rig_write_output,
	.unlocked_ioctl = rig_ioctl,
};

static const struct file_operations rig_log_fops = {
	.owner = THIS_MODULE,
	.write = rig_write_log,
};

static const struct file_operations rig_status_fops = {
	.owner = THIS_MODULE,
	.write = rig_write_status,
};

static struct miscdevice rig_devices[] = {
	{ MISC_DYNAMIC_MINOR, "rig-output", &rig_output_fops, .mode = 0666 },
	{ MISC_DYNAMIC_MINOR, "rig-log", &rig_log_fops, .mode = 0666 },
	{ MISC_DYNAMIC_MINOR, "rig-status", &rig_status_fops },
};

static int __init rig_init(void)
{
	int i, error;

	rig_frame(RIG_HELLO, "kvm-rs rig", 10);
	register_console(&rig_console);
	atomic_notifier_chain_register(&panic_notifier_list, &rig_panic_block);
	for (i = 0; i < ARRAY_SIZE(rig_devices); i++) {
		error = misc_register(&rig_devices[i]);
		if (error)
			return error;
	}
	return 0;
}
module_init(rig_init);

MODULE_DESCRIPTION("Output of the emulated machine");
MODULE_LICENSE("GPL");
