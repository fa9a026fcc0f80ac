//! Finds the kernel modules for the initramfs: what is wanted, all that it needs, in load order.
//! Called by the planner; pure but for [`ModuleTree::read`].
//!
//! There is no modprobe in the initramfs, so the kernel's own requests for modules
//! (`request_module`) find nothing: what a modprobe would have added while a file system is mounted
//! has to be there before.

use std::collections::{HashMap, HashSet};
use std::io;

use serde::{Deserialize, Serialize};

use crate::sys::Sys;

/// What stage 2 can't do without, besides the drivers of the disks: resin-boot is FAT, and the
/// FAT driver refuses to mount without its code page.
pub const REQUIRED: [&str; 3] = ["ext4", "vfat", "nls_cp437"];

/// What file systems ask for while they are mounted, if the kernel is built so: the character set of
/// FAT names (FAT_DEFAULT_IOCHARSET), and checksums of ext4 and jbd2 from the crypto API.
pub const OPTIONAL: [&str; 7] = [
    "nls_iso8859_1",
    "nls_ascii",
    "nls_utf8",
    "crc32c_generic",
    "crc32c_intel",
    "libcrc32c",
    "crc16",
];

/// What shows the variables of UEFI firmware, if it is not built in.
pub const EFI_VARIABLES: &str = "efivarfs";

/// What restarts a Raspberry Pi: without it a reboot hangs for ever.
pub const RASPBERRY_PI_RESTART: &str = "bcm2835_wdt";

/// A module to put into the initramfs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleFile {
    /// Its name, with underscores.
    pub name: String,
    /// Its file on the old system, which may be compressed.
    pub path: String,
}

/// Modules that are wanted, but neither in a file nor built into the kernel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the running kernel has no module {}", names.join(", "))]
pub struct Missing {
    /// Their names.
    pub names: Vec<String>,
}

/// The modules of one kernel release, as depmod describes them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModuleTree {
    /// By name.
    modules: HashMap<String, Module>,
    /// Names of what is built into the kernel.
    builtin: HashSet<String>,
    /// Names of modules by another name for them; device ids are left out.
    aliases: HashMap<String, Vec<String>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Module {
    path: String,
    /// Names of modules whose symbols it uses.
    needs: Vec<String>,
    /// Names or aliases of what should be loaded before it.
    before: Vec<String>,
    /// Names or aliases of what should be loaded after it.
    after: Vec<String>,
}

/// The texts of depmod's files; those that are missing are empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct Texts<'a> {
    /// modules.dep.
    pub dep: &'a str,
    /// modules.softdep.
    pub softdep: &'a str,
    /// modules.builtin.
    pub builtin: &'a str,
    /// modules.alias.
    pub alias: &'a str,
}

impl ModuleTree {
    /// Reads the description of the modules of a kernel release.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no modules.dep: the package of the running kernel was removed, or
    /// all is built in. What can't be read otherwise is named in the error.
    pub fn read(sys: &Sys, release: &str) -> io::Result<ModuleTree> {
        let dirs = ["/lib/modules", "/usr/lib/modules"].map(|dir| format!("{dir}/{release}"));
        let dir = dirs
            .iter()
            .find(|dir| sys.exists(&format!("{dir}/modules.dep")))
            .unwrap_or(&dirs[0]);
        let text = |name: &str| {
            let path = format!("{dir}/{name}");
            sys.read_text(&path)
                .map_err(|error| io::Error::new(error.kind(), format!("reading {path}: {error}")))
        };
        let optional = |name: &str| match text(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            read => read,
        };
        let texts = Texts {
            dep: &text("modules.dep")?,
            softdep: &optional("modules.softdep")?,
            builtin: &optional("modules.builtin")?,
            alias: &optional("modules.alias")?,
        };
        Ok(ModuleTree::parse(dir, texts))
    }

    /// Takes the description of the modules below the folder `dir`.
    pub fn parse(dir: &str, texts: Texts) -> ModuleTree {
        let mut tree = ModuleTree {
            builtin: texts.builtin.lines().filter_map(name_of).collect(),
            ..ModuleTree::default()
        };
        for line in texts.dep.lines() {
            let Some((path, needs)) = line.split_once(':') else {
                continue;
            };
            let Some(name) = name_of(path) else {
                continue;
            };
            let module = Module {
                path: match path.starts_with('/') {
                    true => path.to_owned(),
                    false => format!("{dir}/{path}"),
                },
                needs: needs.split_whitespace().filter_map(name_of).collect(),
                ..Module::default()
            };
            tree.modules.insert(name, module);
        }
        for line in texts.softdep.lines() {
            tree.add_softdep(line);
        }
        for line in texts.alias.lines() {
            tree.add_alias(line);
        }
        tree
    }

    /// Takes a line such as `softdep libcrc32c pre: crc32c post: other`.
    fn add_softdep(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        if words.next() != Some("softdep") {
            return;
        }
        let name = words.next().map(normal);
        let Some(module) = name.and_then(|name| self.modules.get_mut(&name)) else {
            return;
        };
        let mut list = None;
        for word in words {
            match (word, &mut list) {
                ("pre:", _) => list = Some(&mut module.before),
                ("post:", _) => list = Some(&mut module.after),
                (name, Some(list)) => list.push(normal(name)),
                (_, None) => {}
            }
        }
    }

    /// Takes a line such as `alias crypto-crc32c crc32c_intel`. Patterns of device ids, of which
    /// there are thousands, name devices and never what another module asks for.
    fn add_alias(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        if words.next() != Some("alias") {
            return;
        }
        if let (Some(alias), Some(name)) = (words.next(), words.next())
            && !alias.contains([':', '*'])
        {
            let names = self.aliases.entry(normal(alias)).or_default();
            names.push(normal(name));
        }
    }

    /// The modules that `name` means: itself, or all that have it as an alias. `None` for what is
    /// neither there nor built in.
    fn meant_by(&self, name: &str) -> Option<Vec<&str>> {
        if let Some((name, _)) = self.modules.get_key_value(name) {
            return Some(vec![name]);
        }
        if self.builtin.contains(name) {
            return Some(Vec::new());
        }
        let names = self.aliases.get(name)?;
        Some(names.iter().map(String::as_str).collect())
    }
}

/// The files of the wanted modules and of all that they need, each once, what is needed first.
///
/// Names are module names or aliases; a hyphen equals an underscore. What is built in needs no file.
/// Of the optional ones, and of those that a module only prefers to have (softdep), those that are
/// missing are left out: some of these will also refuse to load, such as the checksums for
/// instructions that the processor lacks.
///
/// # Errors
///
/// [`Missing`] names all required modules that are neither in a file nor built in.
pub fn resolve(
    tree: &ModuleTree,
    required: &[&str],
    optional: &[&str],
) -> Result<Vec<ModuleFile>, Missing> {
    let mut closure = Closure {
        tree,
        seen: HashSet::new(),
        files: Vec::new(),
        missing: Vec::new(),
    };
    // The optional ones first: they are what the required ones ask for at run time.
    for name in optional {
        closure.prefer(&normal(name));
    }
    for name in required {
        closure.require(&normal(name));
    }
    match closure.missing.is_empty() {
        true => Ok(closure.files),
        false => Err(Missing {
            names: closure.missing,
        }),
    }
}

/// The walk through the dependencies.
struct Closure<'a> {
    tree: &'a ModuleTree,
    seen: HashSet<&'a str>,
    files: Vec<ModuleFile>,
    missing: Vec<String>,
}

impl<'a> Closure<'a> {
    fn require(&mut self, name: &str) {
        match self.tree.meant_by(name) {
            Some(names) => names.into_iter().for_each(|name| self.add(name)),
            None => {
                if !self.missing.iter().any(|known| known == name) {
                    self.missing.push(name.to_owned());
                }
            }
        }
    }

    fn prefer(&mut self, name: &str) {
        let names = self.tree.meant_by(name).unwrap_or_default();
        names.into_iter().for_each(|name| self.add(name));
    }

    /// Adds a module behind all that it needs.
    fn add(&mut self, name: &'a str) {
        let tree = self.tree;
        let Some(module) = tree.modules.get(name) else {
            return;
        };
        if !self.seen.insert(name) {
            return;
        }
        for name in &module.before {
            self.prefer(name);
        }
        // modprobe loads them from the last to the first.
        for name in module.needs.iter().rev() {
            self.require(name);
        }
        self.files.push(ModuleFile {
            name: name.to_owned(),
            path: module.path.clone(),
        });
        for name in &module.after {
            self.prefer(name);
        }
    }
}

/// The module that a path such as `kernel/fs/fat/vfat.ko.xz` holds.
fn name_of(path: &str) -> Option<String> {
    let file = path.trim().rsplit('/').next()?;
    let (name, _) = file.split_once(".ko")?;
    Some(normal(name))
}

/// The kernel's own spelling of a module name.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of a Debian 12 kernel, 6.1.0.
    const DEBIAN: Texts = Texts {
        dep: "kernel/fs/ext4/ext4.ko: kernel/lib/crc16.ko kernel/fs/mbcache.ko kernel/fs/jbd2/jbd2.ko\n\
              kernel/fs/mbcache.ko:\n\
              kernel/fs/jbd2/jbd2.ko:\n\
              kernel/lib/crc16.ko:\n\
              kernel/fs/fat/vfat.ko: kernel/fs/fat/fat.ko\n\
              kernel/fs/fat/fat.ko:\n\
              kernel/fs/nls/nls_ascii.ko:\n\
              kernel/arch/x86/crypto/crc32c-intel.ko:\n\
              kernel/crypto/crc32c_generic.ko:\n\
              kernel/drivers/usb/storage/usb-storage.ko: kernel/drivers/scsi/scsi_mod.ko kernel/drivers/usb/core/usbcore.ko kernel/drivers/usb/common/usb-common.ko\n\
              kernel/drivers/scsi/scsi_mod.ko: kernel/drivers/scsi/scsi_common.ko\n\
              kernel/drivers/scsi/scsi_common.ko:\n\
              kernel/drivers/usb/core/usbcore.ko: kernel/drivers/usb/common/usb-common.ko\n\
              kernel/drivers/usb/common/usb-common.ko:\n",
        softdep: "# Soft dependencies extracted from modules themselves.\n\
                  softdep ext4 pre: crypto-crc32c\n\
                  softdep jbd2 pre: crypto-crc32c\n",
        builtin: "kernel/fs/nls/nls_cp437.ko\nkernel/drivers/virtio/virtio-pci.ko\n",
        alias: "alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci\n\
                alias crypto-crc32c crc32c_intel\n\
                alias cpu:type:x86,ven*fam*mod*:feature:*0094* crc32c_intel\n\
                alias crypto-crc32c crc32c_generic\n\
                alias fs-ext4 ext4\n",
    };

    fn debian() -> ModuleTree {
        ModuleTree::parse("/lib/modules/6.1.0", DEBIAN)
    }

    fn names(files: &[ModuleFile]) -> Vec<&str> {
        files.iter().map(|file| file.name.as_str()).collect()
    }

    #[test]
    fn what_is_needed_or_preferred_comes_first() {
        let files = resolve(&debian(), &["ext4"], &[]).unwrap();
        assert_eq!(
            names(&files),
            [
                "crc32c_intel",
                "crc32c_generic",
                "jbd2",
                "mbcache",
                "crc16",
                "ext4"
            ]
        );
        assert_eq!(files[5].path, "/lib/modules/6.1.0/kernel/fs/ext4/ext4.ko");
    }

    #[test]
    fn hyphens_equal_underscores_and_nothing_comes_twice() {
        let files = resolve(&debian(), &["usb-storage", "usb_storage", "scsi_mod"], &[]).unwrap();
        assert_eq!(
            names(&files),
            [
                "usb_common",
                "usbcore",
                "scsi_common",
                "scsi_mod",
                "usb_storage"
            ]
        );
    }

    #[test]
    fn what_is_built_in_needs_no_file() {
        assert_eq!(
            resolve(&debian(), &["nls_cp437", "virtio_pci"], &[]),
            Ok(vec![])
        );
    }

    #[test]
    fn all_that_is_missing_is_named_at_once() {
        let missing = resolve(&debian(), &["nvme", "ext4", "my-disk", "nvme"], &["zfs"]);
        let names = vec!["nvme".to_owned(), "my_disk".to_owned()];
        assert_eq!(missing, Err(Missing { names }));
    }

    #[test]
    fn the_standard_lists_resolve() {
        let files = resolve(&debian(), &REQUIRED, &OPTIONAL).unwrap();
        assert_eq!(files[0].name, "nls_ascii");
        assert!(names(&files).ends_with(&["ext4", "fat", "vfat"]));
    }

    #[test]
    fn softdeps_in_a_circle_end() {
        let texts = Texts {
            dep: "a.ko.zst:\nb.ko.zst:\n",
            softdep: "softdep a pre: b post: c\nsoftdep b pre: a\nsoftdep gone pre: a\n",
            ..Texts::default()
        };
        let tree = ModuleTree::parse("/m", texts);
        assert_eq!(names(&resolve(&tree, &["a"], &[]).unwrap()), ["b", "a"]);
    }

    #[test]
    fn a_broken_need_counts_as_missing() {
        let texts = Texts {
            dep: "kernel/a.ko: kernel/b.ko\n",
            ..Texts::default()
        };
        let missing = resolve(&ModuleTree::parse("/m", texts), &["a"], &[]).unwrap_err();
        assert_eq!(missing.names, ["b"]);
    }

    #[test]
    fn either_folder_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let sys = Sys::new(dir.path());
        let error = ModuleTree::read(&sys, "6.1.0").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("/lib/modules/6.1.0/modules.dep"));
        let modules = dir.path().join("usr/lib/modules/6.1.0");
        std::fs::create_dir_all(&modules).unwrap();
        std::fs::write(modules.join("modules.dep"), "a.ko:\n").unwrap();
        let tree = ModuleTree::read(&sys, "6.1.0").unwrap();
        let files = resolve(&tree, &["a"], &[]).unwrap();
        assert_eq!(files[0].path, "/usr/lib/modules/6.1.0/a.ko");
    }
}
