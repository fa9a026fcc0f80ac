//! Reads the user's GRUB images, or makes them with the GRUB of this machine. Called with the other
//! material, before there is a plan: whatever is missing is said while nothing is changed.

use super::{File, NewGrub, Piece, config, sectors};
use crate::config::Config;
use crate::config::kind::HomeFile;
use crate::efi;
use crate::finding::Finding;
use crate::grub_platform;
use crate::handover::TableIdentity;
use crate::host::grub_tools::image_tools;
use crate::host::{CoreTools, Host};
use crate::payload::scan::Scan;
use crate::sys::Sys;

/// What the core must have to start a system from its own files.
const MODULES: [&str; 11] = [
    "part_msdos",
    "fat",
    "ext2",
    "normal",
    "configfile",
    "search",
    "search_label",
    "linux",
    "boot",
    "echo",
    "test",
];

/// What configurations of balenaOS use beyond that; GRUBs that lack some of it do without.
const MORE_MODULES: [&str; 16] = [
    "all_video",
    "cat",
    "gfxterm",
    "gzio",
    "halt",
    "loadenv",
    "ls",
    "minicmd",
    "part_gpt",
    "probe",
    "reboot",
    "regexp",
    "search_fs_uuid",
    "serial",
    "sleep",
    "terminal",
];

/// What is to be installed: nothing without GRUB_INSTALL, or where there is no image to install it in. An
/// error is a finding that stops the migration.
pub fn gather(
    sys: &Sys,
    config: &Config,
    host: &Host,
    image: Option<&Scan>,
) -> Option<Result<NewGrub, Finding>> {
    let image = image.filter(|_| *config.grub_install)?;
    let job = Job {
        sys,
        config,
        host,
        image,
    };
    Some(match host.firmware.efi {
        true => job.for_uefi(),
        false => job.for_bios(),
    })
}

struct Job<'a> {
    sys: &'a Sys,
    config: &'a Config,
    host: &'a Host,
    image: &'a Scan,
}

impl Job<'_> {
    fn for_bios(&self) -> Result<NewGrub, Finding> {
        if self.image.boot_code {
            return Err(self.needless());
        }
        if let TableIdentity::Gpt(_) = self.image.table {
            return Err(Finding::error(
                "grub-install",
                "GRUB_INSTALL=TRUE on a BIOS needs an image with an MBR, and this one has a GPT",
                "use an image that was made for a BIOS",
            ));
        }
        let (boot_img, core, how) = match (&*self.config.grub_boot_img, &*self.config.grub_core_img)
        {
            (Some(boot_img), Some(core_img)) => (
                self.read("GRUB_BOOT_IMG", boot_img)?,
                self.read("GRUB_CORE_IMG", core_img)?,
                "GRUB_BOOT_IMG and GRUB_CORE_IMG".to_owned(),
            ),
            (None, None) => self.made_for_bios()?,
            _ => {
                return Err(Finding::error(
                    "grub-images",
                    "of GRUB_BOOT_IMG and GRUB_CORE_IMG only one is set",
                    "set both, or neither: then the GRUB of this machine is used",
                ));
            }
        };
        let pieces = sectors(&boot_img, core, self.image).map_err(|error| {
            Finding::error(
                "grub-images",
                format!("{how} can't be used: {error}"),
                "take both images from the flasher image of the same balenaOS, with `extract`",
            )
        })?;
        self.with_config(pieces, Vec::new(), "/grub", &how)
    }

    fn for_uefi(&self) -> Result<NewGrub, Finding> {
        let bits = self.host.firmware.bits();
        let name = efi::removable_loader(bits);
        if self.image.boot.efi_loaders.contains(&name.to_owned()) {
            return Err(self.needless());
        }
        let platform = grub_platform::efi(bits);
        let (program, tools) = self.make(platform, "/EFI/BOOT", &[])?;
        let unused = self.config.grub_boot_img.is_some() || self.config.grub_core_img.is_some();
        let unused = unused.then(|| {
            Finding::warning(
                "grub-images",
                "GRUB_BOOT_IMG and GRUB_CORE_IMG are for a BIOS, and this machine has UEFI firmware: they are not \
                 used",
                "leave them out, or start the machine by its BIOS if the image is made for one",
            )
        });
        let file = File {
            path: format!("/EFI/BOOT/{name}"),
            from: tools.mkimage.clone(),
            bytes: program,
        };
        let mut made = self.with_config(Vec::new(), vec![file], "/EFI/BOOT", &tools.mkimage)?;
        made.findings.extend(unused);
        Ok(made)
    }

    fn needless(&self) -> Finding {
        Finding::error(
            "grub-install",
            format!(
                "GRUB_INSTALL=TRUE, but {} has a boot loader of its own for this machine",
                self.config.image_name.0
            ),
            "leave GRUB_INSTALL out: another loader could only make the new system fail to start",
        )
    }

    fn made_for_bios(&self) -> Result<(Vec<u8>, Vec<u8>, String), Finding> {
        // A prefix without a disk: the one that the BIOS has started.
        let (core, tools) = self.make(grub_platform::BIOS, "(,msdos1)/grub", &["biosdisk"])?;
        let path = format!("{}/boot.img", tools.dir);
        let boot_img = self.sys.read(&path).map_err(|error| {
            Finding::error(
                "grub-tools",
                format!("{path} can't be read: {error}"),
                "install GRUB's images again (package grub-pc-bin)",
            )
        })?;
        Ok((boot_img, core, format!("{} of this machine", tools.mkimage)))
    }

    /// Runs grub-mkimage, which writes to its standard output and changes nothing.
    fn make(
        &self,
        platform: &str,
        prefix: &str,
        needed: &[&str],
    ) -> Result<(Vec<u8>, CoreTools), Finding> {
        let needed: Vec<&str> = needed.iter().chain(&MODULES).copied().collect();
        let grub_dir = self.host.grub.as_ref().map(|grub| grub.dir.as_str());
        let tools = image_tools(self.sys, platform, grub_dir, &needed).ok_or_else(|| {
            Finding::error(
                "grub-tools",
                format!(
                    "GRUB_INSTALL=TRUE needs grub-mkimage and GRUB's modules for {platform}, which \
                     this machine has not got"
                ),
                match platform {
                    grub_platform::BIOS => {
                        "install them (package grub-pc-bin), or set GRUB_BOOT_IMG and GRUB_CORE_IMG"
                    }
                    _ => "install them (packages grub-common and grub-efi-amd64-bin)",
                },
            )
        })?;
        let mut argv: Vec<String> = [
            &*tools.mkimage,
            "-O",
            platform,
            "-d",
            &tools.dir,
            "-p",
            prefix,
        ]
        .map(str::to_owned)
        .to_vec();
        let is_there = |name: &&str| self.sys.exists(&format!("{}/{name}.mod", tools.dir));
        let more = MORE_MODULES.iter().copied().filter(is_there);
        argv.extend(needed.into_iter().chain(more).map(str::to_owned));
        let failed = |why: String| {
            Finding::error(
                "grub-tools",
                format!("{} failed: {why}", tools.mkimage),
                "put the GRUB of this machine in order, or set GRUB_BOOT_IMG and GRUB_CORE_IMG",
            )
        };
        let (ended, image) = self
            .sys
            .output(&argv)
            .map_err(|error| failed(error.to_string()))?;
        match ended.success {
            true => Ok((image, tools)),
            false => Err(failed(format!("{}: {}", ended.how, ended.complaint))),
        }
    }

    /// With grub.cfg, in `folder` of resin-boot.
    fn with_config(
        &self,
        pieces: Vec<Piece>,
        mut files: Vec<File>,
        folder: &str,
        how: &str,
    ) -> Result<NewGrub, Finding> {
        let mut findings = Vec::new();
        let (bytes, from) = match &*self.config.grub_cfg {
            Some(file) => (self.read("GRUB_CFG", file)?, file.0.clone()),
            None => {
                findings.push(Finding::warning(
                    "grub-cfg",
                    "GRUB_CFG is not set, and the grub.cfg that is made instead is known to start \
                     balenaOS up to 2.13 only",
                    "take the grub.cfg from the flasher image of the same balenaOS, with `extract`",
                ));
                let text = config(&self.config.grub_boot_dev.0, &self.image.table);
                (text.into_bytes(), "made here".to_owned())
            }
        };
        files.push(File {
            path: format!("{folder}/grub.cfg"),
            from,
            bytes,
        });
        Ok(NewGrub {
            pieces,
            files,
            summary: format!("GRUB is installed in the new system, by {how}"),
            findings,
        })
    }

    fn read(&self, name: &str, file: &HomeFile) -> Result<Vec<u8>, Finding> {
        self.sys.read(&file.0).map_err(|error| {
            Finding::error(
                "grub-images",
                format!("{} can't be read: {error}", file.0),
                format!("give {name} the name of a file in HOME_DIR"),
            )
        })
    }
}
