//! Files beside those of others: until one is whole it has a name that no other process uses, and it takes
//! the place of another one only where that was asked for. Called by [`crate::extract`] and
//! [`crate::checksums`].
//!
//! What the engine writes goes by fixed names instead ([`super::files::temporary_name`]), so that an undo
//! after a crash knows what to remove.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::Path;

use nix::unistd::{AccessFlags, access};
use tempfile::Builder;

use super::Sys;
use super::files::TEMPORARY;

/// How a file is put at its place.
#[derive(Debug, Clone, Copy)]
pub struct Put {
    /// Permission bits, whatever the umask says.
    pub mode: u32,
    /// User and group, as far as this process may give files to them; else this process's.
    pub owner: Option<(u32, u32)>,
    /// What is there already may be replaced.
    pub replace: bool,
}

impl Sys {
    /// Makes a file with what `fill` writes: it is there as a whole, and on the disk, or not at all.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`] where it must not replace what is there, also when that appeared
    /// in the meantime; and what `fill` gives.
    pub fn put(
        &self,
        path: &str,
        how: Put,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<()> {
        self.pass(&format!("writing {path}"))?;
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut file = Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(TEMPORARY)
            .tempfile_in(self.real(&format!("{folder}/")))?;
        fill(file.as_file_mut())?;
        if let Some((uid, gid)) = how.owner {
            // As `sed -i` does it: who may write in the folder need not own the file.
            let _ = fchown(file.as_file(), Some(uid), Some(gid));
        }
        let mode = fs::Permissions::from_mode(how.mode);
        file.as_file().set_permissions(mode)?;
        file.as_file().sync_all()?;
        let to = self.real(path);
        if how.replace {
            file.persist(&to)?;
        } else if let Err(refused) = file.persist_noclobber(&to) {
            // Some file systems know neither RENAME_NOREPLACE nor hard links.
            if refused.error.kind() == io::ErrorKind::AlreadyExists || self.exists(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            refused.file.persist(&to)?;
        }
        self.sync_folder_of(path)
    }

    /// Whether this process may make files in a folder.
    pub fn may_write_in(&self, folder: &str) -> io::Result<()> {
        let folder = self.real(folder);
        access(Path::new(&folder), AccessFlags::W_OK | AccessFlags::X_OK).map_err(io::Error::from)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const ALONE: Put = Put {
        mode: 0o640,
        owner: None,
        replace: false,
    };

    fn text(text: &str) -> impl FnOnce(&mut File) -> io::Result<()> {
        move |file| file.write_all(text.as_bytes())
    }

    #[test]
    fn a_file_is_there_as_a_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let sys = Sys::new(dir.path());
        sys.put("/a", ALONE, text("whole")).unwrap();
        assert_eq!(sys.read_text("/a").unwrap(), "whole");
        assert_eq!(sys.meta("/a").unwrap().mode, 0o640);
        let failed = sys.put("/b", ALONE, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("no more"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "no more");
        assert_eq!(sys.list("/").unwrap(), ["a"]);
    }

    #[test]
    fn two_at_a_time_do_not_meet() {
        let dir = tempfile::tempdir().unwrap();
        let sys = Sys::new(dir.path());
        let over = Put {
            replace: true,
            ..ALONE
        };
        let outer = sys.put("/a", over, |file| {
            file.write_all(b"one, ")?;
            sys.put("/a", over, text("two"))?;
            assert_eq!(sys.read_text("/a")?, "two");
            file.write_all(b"and whole")
        });
        outer.unwrap();
        assert_eq!(sys.read_text("/a").unwrap(), "one, and whole");
        assert_eq!(sys.list("/").unwrap(), ["a"]);
    }

    #[test]
    fn what_appeared_in_the_meantime_stays() {
        let dir = tempfile::tempdir().unwrap();
        let sys = Sys::new(dir.path());
        let put = sys.put("/a", ALONE, |file| {
            fs::write(dir.path().join("a"), "somebody's")?;
            file.write_all(b"ours")
        });
        assert_eq!(put.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(sys.read_text("/a").unwrap(), "somebody's");
        assert_eq!(sys.list("/").unwrap(), ["a"]);
    }
}
