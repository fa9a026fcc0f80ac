//! What goes to the devices: the operator's folder migratecfg, read once for all units that use it.
//!
//! Beside `balena-migrate` the folder may have executables for several architectures, named
//! `balena-migrate-ARCH`; each device gets the one that it can run, as `balena-migrate`.

use std::io::{self, Read};

use flate2::read::GzDecoder;
use tempfile::TempDir;

use crate::payload::digest::Sha256Writer;
use crate::sys::Sys;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};

use super::facts::PART;

/// The executable's name on a device.
pub const EXECUTABLE: &str = "balena-migrate";

/// A file to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its name on the device, relative to the folder.
    pub name: String,
    /// Where it is here.
    pub path: String,
    /// Size.
    pub bytes: u64,
    /// Permission bits.
    pub mode: u32,
    /// In hexadecimal digits.
    pub sha256: String,
}

/// The folder.
#[derive(Debug, Clone)]
pub struct Material {
    /// All files but the executables.
    items: Vec<Item>,
    /// The executables with the architecture that each is for; blank for that without a name.
    executables: Vec<(String, Item, Elf)>,
    /// Where an archive was unpacked.
    _unpacked: Option<Arc<TempDir>>,
}

/// What an executable runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Elf {
    X86_64,
    I386,
    Arm,
    Aarch64,
    Other,
}

impl Material {
    /// Reads the folder. `sys` is this machine, `folder` absolute.
    pub fn read(sys: &Sys, folder: &str) -> Result<Material> {
        let names = sys
            .files_below(folder)
            .with_context(|| format!("reading the folder {folder}"))?;
        let mut material = Material {
            items: Vec::new(),
            executables: Vec::new(),
            _unpacked: None,
        };
        for name in names {
            if name.ends_with(PART) {
                continue;
            }
            if name.contains(['\n', '\\']) {
                bail!("{folder}/{name}: this name can't be sent; rename the file");
            }
            let path = format!("{folder}/{name}");
            let item = item(sys, &name, &path).with_context(|| format!("reading {path}"))?;
            match architecture(&name) {
                None => material.items.push(item),
                Some(architecture) => {
                    let elf = elf(sys, &path).with_context(|| format!("reading {path}"))?;
                    let named = Item {
                        name: EXECUTABLE.to_owned(),
                        mode: 0o755,
                        ..item
                    };
                    material.executables.push((architecture, named, elf));
                }
            }
        }
        if material.executables.is_empty() {
            return Err(anyhow!(
                "there is no {EXECUTABLE} in {folder}; put the executables for the devices there, as \
                 {EXECUTABLE}-x86_64, {EXECUTABLE}-aarch64, {EXECUTABLE}-armv7 …"
            ));
        }
        Ok(material)
    }

    /// Reads a compressed archive of what is in such a folder.
    pub fn unpack(sys: &Sys, archive: &str) -> Result<Material> {
        let dir = tempfile::tempdir().context("making a temporary folder")?;
        let file = sys
            .open(archive)
            .with_context(|| format!("opening {archive}"))?;
        tar::Archive::new(GzDecoder::new(file))
            .unpack(dir.path())
            .with_context(|| format!("unpacking {archive}"))?;
        let path = dir
            .path()
            .to_str()
            .context("the temporary folder's name is not UTF-8")?;
        let material = Material::read(&Sys::new("/"), path)?;
        Ok(Material {
            _unpacked: Some(Arc::new(dir)),
            ..material
        })
    }

    /// All files for a device whose `uname -m` says `machine`; `None` when there is no executable
    /// for it.
    pub fn files_for(&self, machine: &str) -> Option<Vec<&Item>> {
        let (architectures, elves) = runs(machine);
        let named = architectures.iter().find_map(|wanted| {
            self.executables
                .iter()
                .find(|(architecture, ..)| architecture == wanted)
        });
        let unnamed = || {
            let fits = |elf: &Elf| elves.contains(elf);
            self.executables
                .iter()
                .find(|(architecture, _, elf)| architecture.is_empty() && fits(elf))
        };
        let (_, executable, _) = named.or_else(unnamed)?;
        Some(self.items.iter().chain([executable]).collect())
    }
}

fn item(sys: &Sys, name: &str, path: &str) -> io::Result<Item> {
    let meta = sys.meta(path)?;
    let mut file = sys.open(path)?;
    let mut digest = Sha256Writer::default();
    io::copy(&mut file, &mut digest)?;
    Ok(Item {
        name: name.to_owned(),
        path: path.to_owned(),
        bytes: digest.bytes(),
        mode: meta.mode,
        sha256: digest.hex(),
    })
}

/// Whether a file is an executable of ours, and for what.
fn architecture(name: &str) -> Option<String> {
    const KNOWN: [&str; 5] = ["x86_64", "i686", "aarch64", "armv7", "armv6"];
    let rest = name.strip_prefix(EXECUTABLE)?;
    let rest = match rest.strip_prefix('-') {
        Some(architecture) if KNOWN.contains(&architecture) => architecture,
        None if rest.is_empty() => "",
        _ => return None,
    };
    Some(rest.to_owned())
}

/// Executables that a kernel runs, best first. A 32-bit kernel runs none of 64 bits; that of an ARM
/// board with 64 bits may lack what 32 need.
fn runs(machine: &str) -> (&'static [&'static str], &'static [Elf]) {
    match machine {
        "x86_64" => (&["x86_64", "i686"], &[Elf::X86_64, Elf::I386]),
        "i386" | "i486" | "i586" | "i686" => (&["i686"], &[Elf::I386]),
        "aarch64" => (&["aarch64"], &[Elf::Aarch64]),
        "armv7l" | "armv8l" => (&["armv7", "armv6"], &[Elf::Arm]),
        "armv6l" => (&["armv6"], &[Elf::Arm]),
        _ => (&[], &[]),
    }
}

/// Reads e_machine of the header (elf(5)), which all of these have in little-endian order.
fn elf(sys: &Sys, path: &str) -> io::Result<Elf> {
    let mut header = Vec::new();
    sys.open(path)?.take(20).read_to_end(&mut header)?;
    let machine = match header.get(18..20) {
        Some(bytes) if header.starts_with(b"\x7fELF") => u16::from_le_bytes([bytes[0], bytes[1]]),
        _ => 0,
    };
    Ok(match machine {
        3 => Elf::I386,
        40 => Elf::Arm,
        62 => Elf::X86_64,
        183 => Elf::Aarch64,
        _ => Elf::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Sys) {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = dir.path().join("mig").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let sys = Sys::new(dir.path());
        (dir, sys)
    }

    fn elf_for(machine: u8) -> Vec<u8> {
        let mut bytes = b"\x7fELF".to_vec();
        bytes.resize(18, 0);
        bytes.extend([machine, 0]);
        bytes
    }

    fn executable(material: &Material, machine: &str) -> Option<String> {
        let files = material.files_for(machine)?;
        let found = files.into_iter().find(|item| item.name == EXECUTABLE)?;
        Some(found.path.clone())
    }

    #[test]
    fn each_device_gets_the_executable_that_it_runs() {
        let (_dir, sys) = folder(&[
            ("balena-migrate-x86_64", b"64"),
            ("balena-migrate-i686", b"32"),
            ("balena-migrate-armv6", b"6"),
            ("balena-migrate.conf", b"IMAGE_NAME=x"),
            ("sub/file", b"x"),
            ("image.gz.migdb-part", b"half"),
        ]);
        let material = Material::read(&sys, "/mig").unwrap();
        let wanted = [
            ("x86_64", Some("/mig/balena-migrate-x86_64")),
            ("i586", Some("/mig/balena-migrate-i686")),
            ("armv7l", Some("/mig/balena-migrate-armv6")),
            ("aarch64", None),
            ("riscv64", None),
        ];
        for (machine, path) in wanted {
            assert_eq!(executable(&material, machine).as_deref(), path, "{machine}");
        }
        let names = material.files_for("x86_64").unwrap();
        let names: Vec<&str> = names.iter().map(|item| item.name.as_str()).collect();
        assert_eq!(names, ["balena-migrate.conf", "sub/file", "balena-migrate"]);
    }

    #[test]
    fn the_one_without_a_name_is_looked_into() {
        let (_dir, sys) = folder(&[("balena-migrate", &elf_for(183))]);
        let material = Material::read(&sys, "/mig").unwrap();
        assert!(executable(&material, "aarch64").is_some());
        assert_eq!(executable(&material, "x86_64"), None);
    }

    #[test]
    fn a_folder_without_an_executable_is_refused() {
        let (_dir, sys) = folder(&[("balena-migrate.conf", b"")]);
        let error = Material::read(&sys, "/mig").unwrap_err().to_string();
        assert!(
            error.starts_with("there is no balena-migrate in /mig"),
            "{error}"
        );
    }
}
