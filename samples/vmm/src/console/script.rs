// SPDX-License-Identifier: GPL-2.0

//! A session without a user: a line of input for each prompt of the guest.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::eventfd::EFD_NONBLOCK;

/// Watches the guest's output for its prompt.
#[derive(Debug)]
pub struct Prompt {
    text: Vec<u8>,
    /// How much of the text the output ends with.
    matched: AtomicUsize,
    /// The guest waits for a line.
    waits: AtomicBool,
    event: EventFd,
}

impl Prompt {
    /// Watches for `text`.
    pub fn new(text: &str) -> std::io::Result<Self> {
        Ok(Self {
            text: text.into(),
            matched: AtomicUsize::new(0),
            waits: AtomicBool::new(false),
            event: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    /// Takes more of the guest's output; returns true if it ends with the prompt.
    pub fn watch(&self, output: &[u8]) -> bool {
        let mut matched = self.matched.load(Ordering::Relaxed);
        for &byte in output {
            let next = self.text.get(matched);
            matched = match next {
                Some(&next) if next == byte => matched + 1,
                // A prompt whose start occurs in itself would need more than this.
                _ => usize::from(self.text.first() == Some(&byte)),
            };
        }
        self.matched.store(matched, Ordering::Relaxed);
        matched == self.text.len()
    }

    /// Tells that the guest waits for a line.
    pub fn announce(&self) -> std::io::Result<()> {
        self.waits.store(true, Ordering::Release);
        self.event.write(1)
    }
}

/// Lines to be typed.
pub struct Script {
    prompt: Arc<Prompt>,
    text: Vec<u8>,
}

impl Script {
    /// Creates a script whose lines wait for `prompt`.
    pub fn new(prompt: Arc<Prompt>) -> Self {
        Self {
            prompt,
            text: Vec::new(),
        }
    }

    /// Returns the event that tells of a prompt.
    pub fn prompt_event(&self) -> &EventFd {
        &self.prompt.event
    }

    /// Adds to the lines.
    pub fn add(&mut self, text: &[u8]) {
        self.text.extend(text);
    }

    /// Returns the next line, if there is one and the guest waits for it.
    pub fn next_line(&mut self) -> Option<Vec<u8>> {
        let end = self.text.iter().position(|&byte| byte == b'\n')? + 1;
        self.prompt
            .waits
            .swap(false, Ordering::Acquire)
            .then(|| self.text.drain(..end).collect())
    }

    /// Returns true if the guest waits for a line and there is none.
    pub fn is_over(&self) -> bool {
        self.prompt.waits.load(Ordering::Acquire) && !self.text.contains(&b'\n')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompt_is_seen_at_the_end() {
        let prompt = Prompt::new("\n# ").unwrap();
        assert!(!prompt.watch(b"# "));
        assert!(!prompt.watch(b"\n"));
        assert!(!prompt.watch(b"#"));
        assert!(prompt.watch(b" "));
        assert!(!prompt.watch(b"x"));
        assert!(prompt.watch(b"\n\n# "));
        assert!(!prompt.watch(b"\n# more"));
    }

    #[test]
    fn a_line_for_each_prompt() {
        let prompt = Arc::new(Prompt::new("$ ").unwrap());
        let mut script = Script::new(prompt.clone());
        script.add(b"one\ntwo\nthr");
        assert_eq!(script.next_line(), None);
        prompt.announce().unwrap();
        assert!(!script.is_over());
        assert_eq!(script.next_line().unwrap(), b"one\n");
        assert_eq!(script.next_line(), None);
        prompt.announce().unwrap();
        assert_eq!(script.next_line().unwrap(), b"two\n");
        assert!(!script.is_over());
        prompt.announce().unwrap();
        assert_eq!(script.next_line(), None);
        assert!(script.is_over());
        script.add(b"ee\n");
        assert_eq!(script.next_line().unwrap(), b"three\n");
    }
}
