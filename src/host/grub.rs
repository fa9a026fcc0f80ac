//! Reads how GRUB is set up: what its generated configuration can do for a one-shot boot. Called
//! by the collector.

use super::grub_cfg::GrubCfg;
use super::grub_tools::image_tools;
use super::{ConfigFile, Grub};
use crate::grub_platform;
use crate::sys::Sys;

/// Where distributions keep GRUB's folder.
const DIRS: [&str; 2] = ["/boot/grub", "/boot/grub2"];

/// Where those folders are on an EFI system partition.
const EFI_DIR: &str = "/boot/efi/EFI";

/// GRUB as it is installed, when a folder with a grub.cfg was found.
///
/// A grub.cfg that can't be read promises nothing.
pub(super) fn collect(sys: &Sys) -> Option<Grub> {
    let dir = dir(sys)?;
    let text = lossy(sys, &format!("{dir}/grub.cfg")).unwrap_or_default();
    let config = GrubCfg::parse(&text);
    let custom_path = format!("{dir}/custom.cfg");
    let custom_cfg = config_file(sys, &custom_path);
    // A custom.cfg that can't be read as text must be left alone, so it is no way for an entry.
    let custom_usable = custom_cfg.is_some() || !sys.exists(&custom_path);
    let is_sourced = config.sources_custom_cfg();
    let custom = match &custom_cfg {
        Some(file) if is_sourced => file.text.as_str(),
        _ => "",
    };
    let later_default = match GrubCfg::parse(custom).default() {
        Some(statement) => Some((custom_path.as_str(), statement.to_owned())),
        None => config.later_default().map(|it| ("grub.cfg", it.to_owned())),
    };
    let grubenv = format!("{dir}/grubenv");
    let environment = lossy(sys, &grubenv);
    let saved = environment.as_deref().and_then(saved_entry);
    let menu = GrubCfg::parse(&format!("{text}\n{custom}")).menu(saved.unwrap_or_default());
    let sources_custom_cfg = custom_usable && is_sourced;
    let own = format!("{dir}/grub.cfg");
    let is_own = !sources_custom_cfg && link(sys, &own).is_none();
    Some(Grub {
        honours_next_entry: config.honours_next_entry(),
        later_default: later_default.map(|(file, statement)| format!("{statement} in {file}")),
        sources_custom_cfg,
        grubenv: environment,
        grubenv_link: link(sys, &grubenv),
        custom_cfg,
        grub_cfg: is_own.then(|| config_file(sys, &own)).flatten(),
        menu,
        core_tools: image_tools(
            sys,
            grub_platform::BIOS,
            Some(&dir),
            &grub_platform::BIOS_MODULES,
        ),
        dir,
    })
}

/// The folder of the grub.cfg that is used.
///
/// Until Fedora 33, and in RHEL until 8, UEFI firmware starts a GRUB whose whole configuration is on the
/// EFI system partition. Elsewhere it only names the one in /boot.
fn dir(sys: &Sys) -> Option<String> {
    let vendors = match sys.exists("/sys/firmware/efi") {
        true => sys.list(EFI_DIR).unwrap_or_default(),
        false => Vec::new(),
    };
    let whole: Vec<String> = vendors
        .iter()
        .map(|vendor| format!("{EFI_DIR}/{vendor}"))
        .filter(|dir| {
            let text = lossy(sys, &format!("{dir}/grub.cfg"));
            text.is_some_and(|text| GrubCfg::parse(&text).has_menu())
        })
        .collect();
    if let [dir] = whole.as_slice() {
        return Some(dir.clone());
    }
    DIRS.into_iter()
        .find(|dir| sys.exists(&format!("{dir}/grub.cfg")))
        .map(str::to_owned)
}

/// The entry that grubenv names as the default, for a grub.cfg that asks for it.
fn saved_entry(environment: &str) -> Option<&str> {
    let mut lines = environment.lines();
    lines.find_map(|line| line.strip_prefix("saved_entry="))
}

fn lossy(sys: &Sys, path: &str) -> Option<String> {
    let bytes = sys.read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Where a symbolic link leads, or what it says where it leads nowhere.
fn link(sys: &Sys, path: &str) -> Option<String> {
    let target = sys.read_link(path).ok()?;
    let target = || target.to_string_lossy().into_owned();
    Some(sys.canonical(path).unwrap_or_else(|_| target()))
}

fn config_file(sys: &Sys, path: &str) -> Option<ConfigFile> {
    Some(ConfigFile {
        text: sys.read_text(path).ok()?,
        mode: sys.meta(path).ok()?.mode,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUSTOM_BLOCK: &str = "source $prefix/custom.cfg\n";

    /// A machine with these files.
    fn machine(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Sys) {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let sys = Sys::new(dir.path());
        (dir, sys)
    }

    #[test]
    fn a_custom_cfg_that_is_no_text_is_left_alone() {
        let (dir, sys) = machine(&[("boot/grub2/grub.cfg", CUSTOM_BLOCK.as_bytes())]);
        assert!(collect(&sys).unwrap().sources_custom_cfg);
        let custom = dir.path().join("boot/grub2/custom.cfg");
        std::fs::write(custom, b"menuentry 'caf\xe9' {\n}\n").unwrap();
        let found = collect(&sys).unwrap();
        assert_eq!(found.dir, "/boot/grub2");
        assert!(!found.sources_custom_cfg);
        assert_eq!(found.custom_cfg, None);
    }

    #[test]
    fn a_default_in_custom_cfg_counts_where_it_is_sourced() {
        let custom: (&str, &[u8]) = ("boot/grub/custom.cfg", b"set default=mine\n");
        let (_dir, sys) = machine(&[("boot/grub/grub.cfg", CUSTOM_BLOCK.as_bytes()), custom]);
        assert_eq!(
            collect(&sys).unwrap().later_default.as_deref(),
            Some("set default=mine in /boot/grub/custom.cfg")
        );
        let (_dir, sys) = machine(&[("boot/grub/grub.cfg", b"menuentry x {\n}\n"), custom]);
        assert_eq!(collect(&sys).unwrap().later_default, None);
    }

    #[test]
    fn the_configuration_that_is_used_on_an_efi_machine() {
        let stub: &[u8] = b"set prefix=($dev)/grub2\nconfigfile $prefix/grub.cfg\n";
        let old: (&str, &[u8]) = ("boot/efi/EFI/redhat/grub.cfg", b"blscfg\n");
        let here: (&str, &[u8]) = ("boot/grub2/grub.cfg", b"blscfg\n");
        let efi: (&str, &[u8]) = ("sys/firmware/efi/x", b"");
        let dir = |files: &[(&str, &[u8])]| {
            let (_dir, sys) = machine(files);
            collect(&sys).map(|grub| grub.dir)
        };
        assert_eq!(dir(&[efi, old]).as_deref(), Some("/boot/efi/EFI/redhat"));
        assert_eq!(
            dir(&[efi, old, here]).as_deref(),
            Some("/boot/efi/EFI/redhat")
        );
        let newer = ("boot/efi/EFI/fedora/grub.cfg", stub);
        assert_eq!(dir(&[efi, newer, here]).as_deref(), Some("/boot/grub2"));
        // A BIOS reads nothing there.
        assert_eq!(dir(&[old, here]).as_deref(), Some("/boot/grub2"));
        assert_eq!(dir(&[old]), None);
    }

    #[test]
    fn grub_cfg_is_kept_where_an_entry_has_to_go_into_it() {
        let text: &[u8] = b"menuentry x {\n}\n";
        let (dir, sys) = machine(&[("boot/grub/grub.cfg", text)]);
        let found = collect(&sys).unwrap();
        assert!(!found.sources_custom_cfg);
        assert_eq!(found.grub_cfg.unwrap().text.as_bytes(), text);
        let path = dir.path().join("boot/grub/grub.cfg");
        std::fs::write(&path, b"menuentry caf\xe9 {\n}\n").unwrap();
        assert_eq!(collect(&sys).unwrap().grub_cfg, None);
        std::fs::write(dir.path().join("boot/grub/real.cfg"), text).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("real.cfg", &path).unwrap();
        assert_eq!(collect(&sys).unwrap().grub_cfg, None);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, CUSTOM_BLOCK).unwrap();
        assert_eq!(collect(&sys).unwrap().grub_cfg, None);
    }

    #[test]
    fn a_grubenv_that_is_a_link() {
        let (dir, sys) = machine(&[
            ("boot/grub2/grub.cfg", b""),
            ("boot/efi/EFI/fedora/grubenv", b"x"),
        ]);
        let link = dir.path().join("boot/grub2/grubenv");
        std::os::unix::fs::symlink("../efi/EFI/fedora/grubenv", &link).unwrap();
        let found = collect(&sys).unwrap();
        let to = "/boot/efi/EFI/fedora/grubenv";
        assert_eq!(found.grubenv_link.as_deref(), Some(to));
        assert_eq!(found.grubenv.as_deref(), Some("x"));
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("../none", &link).unwrap();
        let found = collect(&sys).unwrap();
        assert_eq!(found.grubenv_link.as_deref(), Some("../none"));
        assert_eq!(found.grubenv, None);
    }
}
