// SPDX-License-Identifier: GPL-2.0

//! The terminal at the other end of the guest's serial port.
//!
//! Standard output shows what the guest writes. What comes from standard input goes to the guest:
//!
//! - From a terminal, each key at once: the terminal is in raw mode while the guest runs. Ctrl-A x
//!   ends the machine, Ctrl-A Ctrl-A is one Ctrl-A for the guest, see [`escape`].
//! - From a pipe or file, as fast as the guest takes it; or, with `--prompt TEXT`, a line each time
//!   that the guest has printed TEXT, as a user would type, see [`script`].

mod escape;
mod raw_mode;
mod script;

use std::io::IsTerminal;
use std::io::Read;
use std::io::Write;
use std::sync::mpsc;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;

use anyhow::anyhow;
use anyhow::Context;
use anyhow::Result;
use event_manager::EventOps;
use event_manager::EventSet;
use event_manager::Events;
use event_manager::MutEventSubscriber;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::eventfd::EFD_NONBLOCK;

use crate::devices::lock;
use crate::devices::serial::Serial;
use crate::machine::Ender;
use crate::vcpu::Stop;
use escape::Escape;
use escape::Key;
pub use raw_mode::RawMode;
pub use script::Prompt;
use script::Script;

/// Bytes that are read at once.
const CHUNK: usize = 4096;

/// Chunks that wait to be typed before no more is read.
const CHUNKS_AHEAD: usize = 4;

/// Returns where the guest's output goes. Outside of a terminal the carriage returns are left out.
pub fn output(prompt: Option<Arc<Prompt>>) -> Box<dyn Write + Send> {
    Box::new(Output {
        stdout: std::io::stdout(),
        plain: !std::io::stdout().is_terminal(),
        prompt,
    })
}

/// Standard output, watched for the prompt.
struct Output {
    stdout: std::io::Stdout,
    plain: bool,
    prompt: Option<Arc<Prompt>>,
}

impl Write for Output {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        if self.plain {
            for part in data.split(|&byte| byte == b'\r') {
                self.stdout.write_all(part)?;
            }
        } else {
            self.stdout.write_all(data)?;
        }
        if let Some(prompt) = &self.prompt {
            // The prompt must be on the terminal before anything is typed behind it.
            if prompt.watch(data) {
                self.stdout.flush()?;
                prompt.announce()?;
            }
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        // A terminal gets what it shows at once, a pipe a line at a time.
        if self.plain {
            return Ok(());
        }
        self.stdout.flush()
    }
}

/// What waits to be typed, and when it may be.
enum Typist {
    /// A user at a terminal.
    Keys(Escape),
    /// A stream of bytes.
    Stream,
    /// Lines, one for each prompt.
    Script(Script),
}

/// Brings standard input to the serial port.
pub struct Input {
    serial: Arc<Mutex<Serial>>,
    wants_input: EventFd,
    chunks: mpsc::Receiver<Vec<u8>>,
    arrived: EventFd,
    typist: Typist,
    /// What the guest is to take next.
    pending: Vec<u8>,
    ended: bool,
    ender: Ender,
}

impl Input {
    /// Starts to read standard input for `serial`.
    pub fn new(
        serial: Arc<Mutex<Serial>>,
        prompt: Option<Arc<Prompt>>,
        ender: Ender,
    ) -> Result<Self> {
        let arrived = EventFd::new(EFD_NONBLOCK).context("cannot create an eventfd")?;
        let (sender, chunks) = mpsc::sync_channel(CHUNKS_AHEAD);
        let wake = arrived.try_clone()?;
        // Whatever standard input is, a thread can wait for it. It ends with the program.
        thread::Builder::new()
            .name("stdin".to_string())
            .spawn(move || {
                read_stdin(sender, &wake);
                // The other side finds the sender gone when it is woken.
                let _ = wake.write(1);
            })
            .context("cannot start a thread for standard input")?;

        let typist = match prompt {
            Some(prompt) => Typist::Script(Script::new(prompt)),
            None if std::io::stdin().is_terminal() => Typist::Keys(Escape::default()),
            None => Typist::Stream,
        };
        let wants_input = lock(&serial).wants_input().try_clone()?;
        Ok(Self {
            serial,
            wants_input,
            chunks,
            arrived,
            typist,
            pending: Vec::new(),
            ended: false,
            ender,
        })
    }

    /// Takes what arrived, and gives the guest as much as it takes.
    fn advance(&mut self) -> Result<()> {
        loop {
            if !self.pending.is_empty() {
                let taken = lock(&self.serial).feed(&self.pending)?;
                self.pending.drain(..taken);
                if !self.pending.is_empty() {
                    return Ok(());
                }
            }
            if let Typist::Script(script) = &mut self.typist {
                if let Some(line) = script.next_line() {
                    // The guest does not echo what it reads without a terminal's help.
                    lock(&self.serial).show(&line)?;
                    self.pending = line;
                    continue;
                }
                if self.ended && script.is_over() {
                    self.ender.end(Ok(Stop::Quit));
                    return Ok(());
                }
            }
            match self.chunks.try_recv() {
                Ok(chunk) => self.take(chunk),
                Err(mpsc::TryRecvError::Empty) => return Ok(()),
                Err(mpsc::TryRecvError::Disconnected) if self.ended => return Ok(()),
                Err(mpsc::TryRecvError::Disconnected) => self.ended = true,
            }
        }
    }

    /// Takes a chunk of input.
    fn take(&mut self, chunk: Vec<u8>) {
        match &mut self.typist {
            Typist::Stream => self.pending = chunk,
            Typist::Script(script) => script.add(&chunk),
            Typist::Keys(escape) => {
                for byte in chunk {
                    match escape.press(byte) {
                        Key::Type(byte) => self.pending.push(byte),
                        Key::Nothing => {}
                        Key::Quit => self.ender.end(Ok(Stop::Quit)),
                    }
                }
            }
        }
    }

    /// Returns all events that can let the input go on.
    fn events(&self) -> impl Iterator<Item = &EventFd> {
        let prompt = match &self.typist {
            Typist::Script(script) => Some(script.prompt_event()),
            _ => None,
        };
        [&self.wants_input, &self.arrived].into_iter().chain(prompt)
    }
}

impl MutEventSubscriber for Input {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        for event in self.events() {
            if let Err(error) = ops.add(Events::new(event, EventSet::IN)) {
                self.ender
                    .end(Err(anyhow!("cannot wait for input: {error}")));
            }
        }
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        for event in self.events() {
            // Fails where there is nothing to be read.
            let _ = event.read();
        }
        if let Err(error) = self.advance() {
            self.ender.end(Err(error));
        }
    }
}

/// Reads standard input to its end, and hands it over in chunks.
fn read_stdin(chunks: mpsc::SyncSender<Vec<u8>>, arrived: &EventFd) {
    let mut stdin = std::io::stdin();
    let mut buffer = [0; CHUNK];
    loop {
        let chunk = match stdin.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => buffer.iter().take(count).copied().collect(),
        };
        if chunks.send(chunk).is_err() || arrived.write(1).is_err() {
            return;
        }
    }
}
