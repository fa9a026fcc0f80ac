//! Files of the machine, below a root folder: `/` on a device, a folder in tests.
//!
//! Every change goes through [`Sys`], names itself to the gate first, and is on the disk when the
//! call returns: whole files are written beside their place, fsynced, renamed, and the folder is
//! fsynced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::extents::{Kernel, Media};

/// Asked before every change, with the change in words; an error keeps it from happening.
///
/// On a device it turns a pending SIGINT into an error; in tests it fails, or plays dead, at the
/// n-th change.
pub type Gate = Arc<dyn Fn(&str) -> io::Result<()> + Send + Sync>;

/// The machine.
#[derive(Clone)]
pub struct Sys {
    root: PathBuf,
    gate: Option<Gate>,
    media: Arc<dyn Media>,
}

/// Size and free space of a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Size.
    pub bytes: u64,
    /// Free for root.
    pub free: u64,
    /// Free for everybody: without what is kept for root.
    pub available: u64,
}

/// What a file is, apart from its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub bytes: u64,
    /// A folder.
    pub is_dir: bool,
    /// A regular file.
    pub is_file: bool,
}

impl Sys {
    /// The machine whose files are below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Sys {
        Sys {
            root: root.into(),
            gate: None,
            media: Arc::new(Kernel),
        }
    }

    /// The same machine with a gate before every change.
    pub fn gated(&self, gate: Gate) -> Sys {
        Sys {
            gate: Some(gate),
            ..self.clone()
        }
    }

    /// The same machine, with another to tell where files lie on its disks.
    pub fn on_media(&self, media: Arc<dyn Media>) -> Sys {
        Sys {
            media,
            ..self.clone()
        }
    }

    pub(super) fn media(&self) -> &dyn Media {
        self.media.as_ref()
    }

    /// Asks the gate whether `change` may happen.
    pub(crate) fn pass(&self, change: &str) -> io::Result<()> {
        match &self.gate {
            Some(gate) => gate(change),
            None => Ok(()),
        }
    }

    /// Where a path of the machine lies for this process.
    pub(crate) fn real(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The whole content of a file.
    pub fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        fs::read(self.real(path))
    }

    /// The whole content of a text file.
    pub fn read_text(&self, path: &str) -> io::Result<String> {
        fs::read_to_string(self.real(path))
    }

    /// Opens a file or a device for reading.
    pub fn open(&self, path: &str) -> io::Result<File> {
        File::open(self.real(path))
    }

    /// Whether the kernel has given a block device to somebody: a file system, swap, a mapping, an
    /// array, a pool.
    pub fn is_claimed(&self, path: &str) -> bool {
        let mut options = OpenOptions::new();
        let opened = options
            .read(true)
            .custom_flags(nix::libc::O_EXCL)
            .open(self.real(path));
        opened.is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy)
    }

    /// Names in a folder, sorted; those that are not UTF-8 are left out.
    pub fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.real(path))? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Paths of all regular files below a folder, relative to it and sorted. A link to a file counts as a
    /// file; a link to a folder is not followed.
    ///
    /// # Errors
    ///
    /// Also a name that is not UTF-8.
    pub fn files_below(&self, folder: &str) -> io::Result<Vec<String>> {
        let mut files = Vec::new();
        let mut folders = vec![String::new()];
        while let Some(inside) = folders.pop() {
            for entry in fs::read_dir(self.real(folder).join(&inside))? {
                let entry = entry?;
                let name = entry.file_name().into_string().map_err(|name| {
                    io::Error::other(format!("the name {} is not UTF-8", name.display()))
                })?;
                let path = match inside.as_str() {
                    "" => name,
                    inside => format!("{inside}/{name}"),
                };
                if entry.file_type()?.is_dir() {
                    folders.push(path);
                } else if fs::metadata(entry.path()).is_ok_and(|meta| meta.is_file()) {
                    files.push(path);
                }
            }
        }
        files.sort();
        Ok(files)
    }

    /// The target of a symbolic link, as it stands there.
    pub fn read_link(&self, path: &str) -> io::Result<PathBuf> {
        fs::read_link(self.real(path))
    }

    /// `path` without symbolic links, as the machine names it.
    pub fn canonical(&self, path: &str) -> io::Result<String> {
        let root = fs::canonicalize(&self.root)?;
        let real = fs::canonicalize(self.real(path))?;
        let inside = real
            .strip_prefix(&root)
            .map_err(|_| io::Error::other(format!("{path} leads out of the machine's root")))?;
        Path::new("/")
            .join(inside)
            .into_os_string()
            .into_string()
            .map_err(|_| io::Error::other(format!("{path} is not UTF-8")))
    }

    /// Whether something is there, also a dangling link.
    pub fn exists(&self, path: &str) -> bool {
        fs::symlink_metadata(self.real(path)).is_ok()
    }

    /// What the file at `path` is; links are followed.
    pub fn meta(&self, path: &str) -> io::Result<Meta> {
        fs::metadata(self.real(path)).map(|meta| Meta {
            mode: meta.permissions().mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            bytes: meta.len(),
            is_dir: meta.is_dir(),
            is_file: meta.is_file(),
        })
    }

    /// When the file at `path` was written last; links are followed.
    pub fn modified(&self, path: &str) -> io::Result<SystemTime> {
        fs::metadata(self.real(path))?.modified()
    }

    /// Space on the file system that holds `path`.
    pub fn statvfs(&self, path: &str) -> io::Result<Space> {
        self.media.space(&self.real(path))
    }

    /// Makes or replaces a file with `bytes`: afterwards it is the old one or the new one, whole.
    ///
    /// `owner` is user and group; without it a new file gets this process's.
    pub fn write_whole(
        &self,
        path: &str,
        bytes: &[u8],
        mode: u32,
        owner: Option<(u32, u32)>,
    ) -> io::Result<()> {
        self.write_with(path, mode, owner, |file| file.write_all(bytes))
    }

    /// As [`Sys::write_whole`], with the content written by `fill`.
    pub fn write_with(
        &self,
        path: &str,
        mode: u32,
        owner: Option<(u32, u32)>,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<()> {
        let temporary = temporary_name(path);
        self.pass(&format!("creating {temporary}"))?;
        let real = self.real(&temporary);
        match fs::remove_file(&real) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&real)?;
        let filled = self.pass(&format!("filling {temporary}")).and_then(|()| {
            fill(&mut file)?;
            if let Some((uid, gid)) = owner {
                std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
            }
            // The umask has no say here, and secrets were never readable in between.
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            file.sync_all()?;
            self.pass(&format!("renaming {temporary} to {path}"))?;
            fs::rename(&real, self.real(path))
        });
        if filled.is_err() && self.pass("tidying").is_ok() {
            let _ = fs::remove_file(&real);
        }
        filled?;
        self.sync_folder_of(path)
    }

    /// Makes or replaces the file `to` with what is in `from`, without holes.
    ///
    /// Holes are filled since GRUB can't read sparse files on some file systems.
    pub fn copy(&self, from: &str, to: &str, mode: u32) -> io::Result<()> {
        let mut source = self.open(from)?;
        self.write_with(to, mode, None, |file| {
            let mut buffer = vec![0; 1 << 20];
            loop {
                match source.read(&mut buffer)? {
                    0 => return Ok(()),
                    n => file.write_all(&buffer[..n])?,
                }
            }
        })
    }

    /// Renames a file within its file system.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.pass(&format!("renaming {from} to {to}"))?;
        fs::rename(self.real(from), self.real(to))?;
        self.sync_folder_of(to)?;
        self.sync_folder_of(from)
    }

    /// Removes a file; it is no error when there is none.
    pub fn remove_file(&self, path: &str) -> io::Result<()> {
        self.pass(&format!("removing {path}"))?;
        match fs::remove_file(self.real(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.sync_folder_of(path),
        }
    }

    /// Makes a folder in an existing one.
    pub fn make_dir(&self, path: &str, mode: u32) -> io::Result<()> {
        self.pass(&format!("making {path}"))?;
        fs::DirBuilder::new().mode(mode).create(self.real(path))?;
        self.sync_folder_of(path)
    }

    /// Removes a folder with all that is in it; it is no error when there is none.
    pub fn remove_tree(&self, path: &str) -> io::Result<()> {
        self.pass(&format!("removing {path}"))?;
        match fs::remove_dir_all(self.real(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.sync_folder_of(path),
        }
    }

    /// Removes an empty folder; it is no error when there is none.
    pub fn remove_dir(&self, path: &str) -> io::Result<()> {
        self.pass(&format!("removing {path}"))?;
        match fs::remove_dir(self.real(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.sync_folder_of(path),
        }
    }

    /// Opens a file to append to it, made with `mode` when it is not there.
    pub fn append(&self, path: &str, mode: u32) -> io::Result<Appender> {
        self.pass(&format!("opening {path} to append"))?;
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(mode)
            .open(self.real(path))?;
        self.sync_folder_of(path)?;
        Ok(Appender {
            sys: self.clone(),
            path: path.to_owned(),
            file,
        })
    }

    /// Takes a lock that ends with this process; `None` when another one holds it.
    pub fn lock(&self, path: &str) -> io::Result<Option<Lock>> {
        match Flock::lock(self.lock_file(path)?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Lock { _held: lock })),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error.into()),
        }
    }

    /// Takes a lock that others may share, and waits for it. It ends with this process.
    pub fn lock_shared(&self, path: &str) -> io::Result<Lock> {
        self.lock_waiting(path, FlockArg::LockShared)
    }

    /// Takes a lock that nobody shares, and waits for it. It ends with this process.
    pub fn lock_alone(&self, path: &str) -> io::Result<Lock> {
        self.lock_waiting(path, FlockArg::LockExclusive)
    }

    fn lock_waiting(&self, path: &str, how: FlockArg) -> io::Result<Lock> {
        let mut file = self.lock_file(path)?;
        loop {
            match Flock::lock(file, how) {
                Ok(lock) => return Ok(Lock { _held: lock }),
                Err((again, Errno::EINTR)) => file = again,
                Err((_, error)) => return Err(error.into()),
            }
        }
    }

    fn lock_file(&self, path: &str) -> io::Result<File> {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.real(path))
    }

    /// Sets when a file was written last.
    pub fn touch(&self, path: &str, time: SystemTime) -> io::Result<()> {
        self.pass(&format!("touching {path}"))?;
        let file = OpenOptions::new().write(true).open(self.real(path))?;
        file.set_modified(time)
    }

    /// A file without a name in the folder for temporary files; it is gone when it is closed.
    pub fn scratch(&self) -> io::Result<File> {
        tempfile::tempfile()
    }

    /// Writes everything that is only in memory to all disks.
    pub fn sync(&self) {
        nix::unistd::sync();
    }

    /// Makes the names in the folder of `path` durable.
    pub(super) fn sync_folder_of(&self, path: &str) -> io::Result<()> {
        let real = self.real(path);
        let folder = real.parent().unwrap_or(Path::new("/"));
        File::open(folder)?.sync_all()
    }
}

/// A lock that is held until it is dropped.
pub struct Lock {
    _held: Flock<File>,
}

/// An append-only file: each line is on the disk when [`Appender::line`] returns.
pub struct Appender {
    sys: Sys,
    path: String,
    file: File,
}

impl Appender {
    /// Appends `line` and a line break, and waits for the disk.
    pub fn line(&mut self, line: &str) -> io::Result<()> {
        self.sys.pass(&format!("appending to {}", self.path))?;
        self.file.write_all(format!("{line}\n").as_bytes())?;
        self.file.sync_all()
    }
}

/// The name beside `path` under which its new content is written.
///
/// It is fixed, so that an undo after a crash knows what to remove.
pub fn temporary_name(path: &str) -> String {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    format!("{folder}/.{name}{TEMPORARY}")
}

/// The file name whose new content [`temporary_name`] has named so.
pub fn meant_by(temporary: &str) -> Option<&str> {
    temporary.strip_prefix('.')?.strip_suffix(TEMPORARY)
}

/// What the names of files end in that are not whole.
pub(super) const TEMPORARY: &str = ".balena-migrate-new";

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> (tempfile::TempDir, Sys) {
        let dir = tempfile::tempdir().unwrap();
        let sys = Sys::new(dir.path());
        (dir, sys)
    }

    #[test]
    fn a_whole_file_replaces_the_old_one_with_the_mode_asked_for() {
        let (_dir, sys) = machine();
        sys.write_whole("/a", b"old", 0o644, None).unwrap();
        sys.write_whole("/a", b"new", 0o600, None).unwrap();
        assert_eq!(sys.read("/a").unwrap(), b"new");
        assert_eq!(sys.meta("/a").unwrap().mode, 0o600);
        assert_eq!(sys.list("/").unwrap(), ["a"]);
    }

    #[test]
    fn a_failing_writer_leaves_the_old_file_and_no_other() {
        let (_dir, sys) = machine();
        sys.write_whole("/a", b"old", 0o644, None).unwrap();
        let failed = sys.write_with("/a", 0o644, None, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("no more"))
        });
        assert!(failed.is_err());
        assert_eq!(sys.read("/a").unwrap(), b"old");
        assert_eq!(sys.list("/").unwrap(), ["a"]);
    }

    #[test]
    fn the_gate_is_asked_before_anything_changes() {
        let (_dir, sys) = machine();
        let shut = sys.gated(Arc::new(|_| Err(io::Error::other("shut"))));
        assert!(shut.write_whole("/a", b"x", 0o644, None).is_err());
        assert!(shut.make_dir("/d", 0o755).is_err());
        assert_eq!(sys.list("/").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_link_is_followed_inside_the_root() {
        let (dir, sys) = machine();
        sys.make_dir("/real", 0o755).unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        assert_eq!(sys.canonical("/link").unwrap(), "/real");
    }
}
