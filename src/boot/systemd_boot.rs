//! systemd-boot: an entry file on the EFI system partition, and the variable LoaderEntryOneShot (the
//! Boot Loader Specification and the Boot Loader Interface). The loader removes the variable
//! before it starts the entry.

use super::{Armament, BootLoader, Entry, Files, OldBootFile, esp};
use crate::efi::{self, Variable};
use crate::finding::Finding;
use crate::host::Host;
use crate::secret::Secret;
use crate::step::{Expect, OneShot, Step, Writers};

/// How it names itself in LoaderInfo.
const NAME: &str = "systemd-boot";

/// The first version that names entries with the end of their file names.
const OLDEST: u32 = 244;

/// Our entry file, which is its name for the loader too.
const ENTRY_FILE: &str = "balena-migrate.conf";

/// systemd-boot.
pub struct SystemdBoot;

/// Whether it started the running system.
pub fn is_running(host: &Host) -> bool {
    info(host).is_some_and(|info| info.starts_with(NAME))
}

/// What the boot loader says of itself.
fn info(host: &Host) -> Option<&str> {
    let loader = host.firmware.uefi.as_ref()?.loader.as_ref()?;
    Some(&loader.info)
}

impl BootLoader for SystemdBoot {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self, host: &Host) -> Vec<Finding> {
        let uefi = host.firmware.uefi.as_ref();
        let Some((uefi, loader)) = uefi.and_then(|uefi| Some((uefi, uefi.loader.as_ref()?))) else {
            return Vec::new();
        };
        let mut findings = Vec::new();
        if !loader.one_shot || version(&loader.info).is_none_or(|version| version < OLDEST) {
            findings.push(Finding::error(
                "boot-loader",
                format!("{} can't start an entry just once", loader.info),
                "bring it up to date: bootctl update",
            ));
        }
        findings.extend(esp::check(host, uefi));
        findings
    }

    fn files(&self, host: &Host) -> Files {
        esp::files(host)
    }

    fn arm(&self, host: &Host, entry: &Entry) -> Armament {
        let point = &esp::mount(host)
            .expect("checked: the EFI system partition")
            .point;
        let path = format!(
            "{}/loader/entries/{ENTRY_FILE}",
            point.trim_end_matches('/')
        );
        let variable = efi::loader("LoaderEntryOneShot");
        let steps = vec![
            Step::WriteFile {
                path: path.clone(),
                content: Secret::new(entry_text(host, entry)),
                mode: 0o644,
                expect: Expect::Anything,
                writers: Writers::People,
            },
            Step::WriteVariable {
                name: variable.clone(),
                variable: Variable::persistent(efi::utf16(ENTRY_FILE)),
                must_be_free: false,
            },
        ];
        let mut old_files = esp::to_remove(&self.files(host));
        old_files.push(OldBootFile { path, old: None });
        Armament {
            steps,
            old_files,
            variables: vec![variable.clone()],
            one_shot: OneShot::Variable(variable),
            summary: format!(
                "systemd-boot starts the entry \"{ENTRY_FILE}\" at the next boot, once \
                 (LoaderEntryOneShot); every boot after it is as before"
            ),
        }
    }
}

/// The number in `systemd-boot 252.22-1~deb12u1`.
fn version(info: &str) -> Option<u32> {
    let rest = info.strip_prefix(NAME)?.trim_start();
    let end = rest.find(|letter: char| !letter.is_ascii_digit());
    rest[..end.unwrap_or(rest.len())].parse().ok()
}

/// The entry: paths are those of the partition that the file is on.
fn entry_text(host: &Host, entry: &Entry) -> String {
    let place = |path: &str| host.path_in_fs(path).unwrap_or_else(|| path.to_owned());
    format!(
        "title balena-migrate: move this machine to balenaOS\n\
         linux {}\n\
         initrd {}\n\
         options {}\n",
        place(&entry.kernel),
        place(&entry.initramfs),
        entry.arguments.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_of_distributions() {
        assert_eq!(version("systemd-boot 252.22-1~deb12u1"), Some(252));
        assert_eq!(version("systemd-boot 256"), Some(256));
        assert_eq!(version("rEFInd 0.14"), None);
        assert_eq!(version("systemd-boot"), None);
    }
}
