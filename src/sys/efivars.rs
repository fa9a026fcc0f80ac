//! Variables of the UEFI firmware, through efivarfs (kernel: filesystems/efivarfs). Used by the
//! collector, by the engine, and by stage 2.
//!
//! In tests, and on captured machines, the folder is a plain one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::statfs::{FsType, fstatfs};

use super::Sys;
use crate::efi::Variable;

/// Where efivarfs is mounted.
pub const DIR: &str = "/sys/firmware/efi/efivars";

/// EFIVARFS_MAGIC of linux/magic.h.
const MAGIC: FsType = FsType(0xde5e_81e4);

/// FS_IMMUTABLE_FL of linux/fs.h. efivarfs sets it on variables whose loss may keep bad firmware from
/// starting.
const IMMUTABLE: nix::libc::c_long = 0x10;

/// A variable that can't be read or changed.
#[derive(Debug, thiserror::Error)]
#[error("{doing} the EFI variable {name}: {}", reason(.error))]
pub struct VariableError {
    doing: &'static str,
    name: String,
    error: io::Error,
}

/// What it means, where the words of the system would mislead.
fn reason(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOSPC) => "the firmware's memory for variables is full".to_owned(),
        Some(Errno::EROFS) => format!("{DIR} is mounted read-only"),
        Some(Errno::ENOENT | Errno::EACCES | Errno::EPERM) => {
            format!("{error}; is efivarfs mounted at {DIR}, and is this root?")
        }
        Some(Errno::EINVAL | Errno::EIO | Errno::ENODEV) => {
            format!("the firmware refuses it ({error})")
        }
        _ => error.to_string(),
    }
}

impl Sys {
    /// The names of all variables, sorted; none where there is no efivarfs.
    pub fn efi_variables(&self) -> Vec<String> {
        self.list(DIR).unwrap_or_default()
    }

    /// A variable; `None` when it is not there.
    pub fn read_efi(&self, name: &str) -> Result<Option<Variable>, VariableError> {
        let failed = |error| VariableError {
            doing: "reading",
            name: name.to_owned(),
            error,
        };
        match self.read(&path(name)) {
            // One that is being made or removed has no attributes.
            Ok(bytes) => Ok(Variable::parse(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Makes or replaces a variable, and looks whether the firmware has it. One that is there already
    /// with the same value is not written: flash memory wears.
    pub fn write_efi(&self, name: &str, variable: &Variable) -> Result<(), VariableError> {
        let failed = |error| VariableError {
            doing: "writing",
            name: name.to_owned(),
            error,
        };
        if self.read_efi(name)?.as_ref() == Some(variable) {
            return Ok(());
        }
        self.pass(&format!("writing the EFI variable {name}"))
            .and_then(|()| write(&self.real(&path(name)), &variable.to_bytes()))
            .map_err(failed)?;
        let kept = self.read_efi(name)?;
        if kept.is_none_or(|kept| kept.value != variable.value) {
            let error = io::Error::other("the firmware did not keep it");
            return Err(failed(error));
        }
        Ok(())
    }

    /// Removes a variable; it is no error when there is none.
    pub fn remove_efi(&self, name: &str) -> Result<(), VariableError> {
        let failed = |error| VariableError {
            doing: "removing",
            name: name.to_owned(),
            error,
        };
        if !self.exists(&path(name)) {
            return Ok(());
        }
        self.pass(&format!("removing the EFI variable {name}"))
            .and_then(|()| remove(&self.real(&path(name))))
            .map_err(failed)
    }
}

fn path(name: &str) -> String {
    format!("{DIR}/{name}")
}

/// One write(2), which efivarfs takes as one call of the firmware.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let guard = Changeable::make(path)?;
    let open = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(path);
    let mut file = open?;
    if fstatfs(&file)?.filesystem_type() != MAGIC {
        // A plain folder would keep the end of a longer value.
        file.set_len(0)?;
    }
    let written = file.write(bytes)?;
    drop(guard);
    match written == bytes.len() {
        true => Ok(()),
        false => Err(io::ErrorKind::WriteZero.into()),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let mut guard = Changeable::make(path)?;
    fs::remove_file(path)?;
    guard.forget();
    Ok(())
}

/// A variable without its immutable flag, which it gets back when this is dropped.
struct Changeable {
    /// The file, and its flags as they were.
    was: Option<(File, nix::libc::c_long)>,
}

impl Changeable {
    fn make(path: &Path) -> io::Result<Changeable> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Changeable { was: None });
            }
            Err(error) => return Err(error),
        };
        let mut flags = 0;
        // SAFETY: the kernel writes one number, and the descriptor is open as long as `file` lives.
        match unsafe { ioctls::get_flags(file.as_raw_fd(), &raw mut flags) } {
            // A file system without such flags.
            Err(Errno::ENOTTY | Errno::EOPNOTSUPP) => return Ok(Changeable { was: None }),
            got => got?,
        };
        if flags & IMMUTABLE == 0 {
            return Ok(Changeable { was: None });
        }
        set_flags(&file, flags & !IMMUTABLE)?;
        Ok(Changeable {
            was: Some((file, flags)),
        })
    }

    /// There is nothing left that could have a flag.
    fn forget(&mut self) {
        self.was = None;
    }
}

impl Drop for Changeable {
    fn drop(&mut self) {
        if let Some((file, flags)) = &self.was
            && let Err(error) = set_flags(file, *flags)
        {
            log::warn!("protecting an EFI variable again: {error}");
        }
    }
}

fn set_flags(file: &File, flags: nix::libc::c_long) -> io::Result<()> {
    // SAFETY: the kernel reads one number, and the descriptor is open as long as `file` lives.
    unsafe { ioctls::set_flags(file.as_raw_fd(), &raw const flags) }?;
    Ok(())
}

mod ioctls {
    // FS_IOC_GETFLAGS and FS_IOC_SETFLAGS, which are declared with `long` and carry an `int`: the
    // larger one is large enough for both.
    nix::ioctl_read!(get_flags, b'f', 1, nix::libc::c_long);
    nix::ioctl_write_ptr!(set_flags, b'f', 2, nix::libc::c_long);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn machine() -> (tempfile::TempDir, Sys) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(&DIR[1..])).unwrap();
        let sys = Sys::new(dir.path());
        (dir, sys)
    }

    fn variable(value: &[u8]) -> Variable {
        Variable::persistent(value.to_vec())
    }

    #[test]
    fn a_variable_is_made_replaced_by_a_shorter_one_and_removed() {
        let (dir, sys) = machine();
        assert_eq!(sys.read_efi("A-1").unwrap(), None);
        sys.write_efi("A-1", &variable(b"long")).unwrap();
        let file = dir.path().join(&DIR[1..]).join("A-1");
        assert_eq!(fs::read(file).unwrap(), b"\x07\0\0\0long");
        sys.write_efi("A-1", &variable(b"s")).unwrap();
        assert_eq!(sys.read_efi("A-1").unwrap(), Some(variable(b"s")));
        assert_eq!(sys.efi_variables(), ["A-1"]);
        sys.remove_efi("A-1").unwrap();
        sys.remove_efi("A-1").unwrap();
        assert_eq!(sys.efi_variables(), Vec::<String>::new());
    }

    #[test]
    fn what_is_there_already_is_not_written_again() {
        let (_dir, sys) = machine();
        sys.write_efi("A-1", &variable(b"x")).unwrap();
        let shut = sys.gated(Arc::new(|_| Err(io::Error::other("shut"))));
        shut.write_efi("A-1", &variable(b"x")).unwrap();
        assert!(shut.write_efi("A-1", &variable(b"y")).is_err());
        assert!(shut.remove_efi("A-1").is_err());
        assert_eq!(sys.read_efi("A-1").unwrap(), Some(variable(b"x")));
    }

    /// Where this user and this file system have such a flag; the virtual machines have it always.
    #[test]
    fn an_immutable_variable_is_replaced_keeps_its_flag_and_is_removed() {
        let (dir, sys) = machine();
        sys.write_efi("A-1", &variable(b"old")).unwrap();
        let path = dir.path().join(&DIR[1..]).join("A-1");
        let flags = || {
            let mut flags = 0;
            let file = File::open(&path).unwrap();
            // SAFETY: as in `Changeable::make`.
            unsafe { ioctls::get_flags(file.as_raw_fd(), &raw mut flags) }.unwrap();
            flags
        };
        let file = File::open(&path).unwrap();
        if set_flags(&file, flags() | IMMUTABLE).is_err() {
            return;
        }
        assert!(fs::write(&path, b"x").is_err(), "it is immutable");
        sys.write_efi("A-1", &variable(b"new")).unwrap();
        assert_eq!(sys.read_efi("A-1").unwrap(), Some(variable(b"new")));
        assert_ne!(flags() & IMMUTABLE, 0);
        sys.remove_efi("A-1").unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn an_error_names_the_variable_and_what_to_look_at() {
        let sys = Sys::new("/nonexistent");
        let error = sys.write_efi("BootNext-1", &variable(b"x")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "writing the EFI variable BootNext-1: No such file or directory (os error 2); is \
             efivarfs mounted at /sys/firmware/efi/efivars, and is this root?"
        );
        let of = |errno: Errno| reason(&io::Error::from(errno));
        assert_eq!(
            of(Errno::ENOSPC),
            "the firmware's memory for variables is full"
        );
        assert_eq!(of(Errno::EROFS), format!("{DIR} is mounted read-only"));
        assert!(of(Errno::EIO).starts_with("the firmware refuses it"));
    }
}
