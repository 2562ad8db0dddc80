//! Loop devices and mounts. What is made here is undone when its value is dropped; when this process dies before,
//! scripts/powercut.sh does it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs a command that must succeed, and returns what it printed.
pub(crate) fn run(program: &str, words: &[&OsStr]) -> Result<String, String> {
    let output = Command::new(program).args(words).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("cannot start {program}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// An ext4 file system, mounted over a loop device over a file. Only child processes touch it here when the file is
/// this process's own: whoever serves a file system must not wait for it.
pub(crate) struct Mount {
    /// `None` once given back.
    device: Option<PathBuf>,
    mounted_on: Option<PathBuf>,
}

impl Mount {
    /// Attaches and mounts.
    pub(crate) fn new(file: &Path, directory: &Path) -> Result<Mount, String> {
        let device = run("losetup", &["--find".as_ref(), "--show".as_ref(), file.as_os_str()])?;
        let mut mount = Mount { device: Some(device.into()), mounted_on: None };
        let device = mount.device.as_ref().expect("just attached");
        let words = ["-t", "ext4", "-o", "noatime,errors=continue"].map(OsStr::new);
        run("mount", &[&words, [device.as_os_str(), directory.as_os_str()].as_slice()].concat())?;
        mount.mounted_on = Some(directory.to_path_buf());
        Ok(mount)
    }

    /// How many faults the file system has noticed in itself.
    pub(crate) fn faults(&self) -> Result<u64, String> {
        let device = self.device.as_ref().and_then(|device| device.file_name()).expect("it is attached");
        let path = Path::new("/sys/fs/ext4").join(device).join("errors_count");
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        text.trim().parse().map_err(|_| format!("{} has no number", path.display()))
    }

    /// Unmounts and detaches.
    pub(crate) fn close(mut self) -> Result<(), String> {
        self.undo()
    }

    fn undo(&mut self) -> Result<(), String> {
        if let Some(directory) = self.mounted_on.take() {
            run("umount", &[directory.as_os_str()])?;
        }
        if let Some(device) = self.device.take() {
            run("losetup", &["--detach".as_ref(), device.as_os_str()])?;
        }
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = self.undo() {
            eprintln!("powercut: {error}");
        }
    }
}
