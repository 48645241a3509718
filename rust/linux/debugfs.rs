// SPDX-License-Identifier: GPL-2.0

//! The module's folder in debugfs, and folders in it that are named after a process and a number of its.
//!
//! A file that was opened may stay open when its folder goes: removing a file waits for who reads it, and
//! later reads fail. So what a file shows must live until the file is dropped, and no longer.

use kernel::{
    debugfs::Dir,
    new_mutex,
    prelude::*,
    str::CString,
    sync::{
        Arc,
        Mutex, //
    }, //
};

/// The folder of the module.
#[pin_data]
pub(crate) struct Root {
    dir: Dir,
    /// The names that are taken: debugfs complains in the log about one that is there already.
    #[pin]
    taken: Mutex<KVec<(i32, u32)>>,
}

impl Root {
    /// Creates the folder `name`.
    pub(crate) fn new(name: &CStr) -> Result<Arc<Self>> {
        let dir = Dir::new(name);
        Arc::pin_init(
            pin_init!(Self {
                dir,
                taken <- new_mutex!(KVec::new()),
            }),
            GFP_KERNEL,
        )
    }

    /// Returns the folder itself.
    pub(crate) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Creates the folder `PID-NUMBER`; `EEXIST` if there is one.
    pub(crate) fn folder(self: &Arc<Self>, pid: i32, number: u32) -> Result<Folder> {
        let name = CString::try_from_fmt(fmt!("{pid}-{number}"))?;
        let key = (pid, number);
        {
            let mut taken = self.taken.lock();
            if taken.contains(&key) {
                return Err(EEXIST);
            }
            taken.push(key, GFP_KERNEL)?;
        }
        // From here on, dropping it frees the name.
        Ok(Folder {
            dir: Some(self.dir.subdir(&name)),
            key,
            root: self.clone(),
        })
    }
}

/// A folder in that of the module. All in it must be dropped before.
pub(crate) struct Folder {
    dir: Option<Dir>,
    key: (i32, u32),
    root: Arc<Root>,
}

impl Folder {
    /// Returns the folder itself.
    pub(crate) fn dir(&self) -> Option<&Dir> {
        self.dir.as_ref()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // It is gone when another one gets its name.
        self.dir = None;
        let mut taken = self.root.taken.lock();
        if let Some(index) = taken.iter().position(|&key| key == self.key) {
            // The index is valid.
            let _ = taken.remove(index);
        }
    }
}
