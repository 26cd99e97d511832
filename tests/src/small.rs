//! A file system of four megabytes, to be filled: the errors of a full disk and of one
//! that takes no writes are the kernel's own.
//!
//! Needs the right to mount, as root or by a `sudo` that does not ask.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::TestDir;

/// Unmounted on drop. Declare it before the gateway that writes to it.
pub struct SmallDisk {
    path: PathBuf,
    dir: TestDir,
}

impl SmallDisk {
    /// `None` where nothing may be mounted.
    pub fn mount() -> Option<Self> {
        let dir = TestDir::new("small");
        let path = dir.join("disk");
        fs::create_dir(&path).unwrap();
        let me = fs::metadata("/proc/self").unwrap();
        let options = format!("size=4m,mode=0700,uid={},gid={}", me.uid(), me.gid());
        privileged(&["mount", "-t", "tmpfs", "-o", &options, "tmpfs"], &path)
            .then_some(Self { path, dir })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes all the space that is left.
    pub fn fill(&self) {
        let mut filler = fs::File::create(self.path.join("filler")).unwrap();
        while std::io::Write::write_all(&mut filler, &[1; 4096]).is_ok() {}
    }

    /// Gives it back.
    pub fn empty(&self) {
        fs::remove_file(self.path.join("filler")).unwrap();
    }

    /// From here on nothing can be written. Nothing may be open for writing.
    pub fn read_only(&self) {
        assert!(privileged(&["mount", "-o", "remount,ro"], &self.path));
    }

    pub fn writable(&self) {
        assert!(privileged(&["mount", "-o", "remount,rw"], &self.path));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = &self.dir;
        privileged(&["umount", "--lazy"], &self.path);
    }
}

fn privileged(command: &[&str], path: &Path) -> bool {
    let run = |command: &[&str]| {
        let done = Command::new(command[0])
            .args(&command[1..])
            .arg(path)
            .stderr(Stdio::null())
            .status();
        done.is_ok_and(|status| status.success())
    };
    run(command) || run(&[&["sudo", "-n"], command].concat())
}
