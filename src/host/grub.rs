//! Reads how GRUB is set up: what its generated configuration can do for a one-shot boot. Called
//! by the collector.

use super::{CORE_MODULES, CoreTools, CustomCfg, Grub};
use crate::sys::Sys;

/// Where distributions keep GRUB's folder.
const DIRS: [&str; 2] = ["/boot/grub", "/boot/grub2"];

/// Programs that write a new grub.cfg.
const GENERATORS: [&str; 3] = ["update-grub", "grub-mkconfig", "grub2-mkconfig"];

/// Programs that make a core.
const IMAGE_MAKERS: [&str; 2] = ["grub-mkimage", "grub2-mkimage"];

/// Where the packages of distributions keep the modules for a BIOS.
const MODULE_DIRS: [&str; 3] = [
    "/usr/lib/grub/i386-pc",
    "/usr/lib/grub2/i386-pc",
    "/usr/share/grub2/i386-pc",
];

/// Where programs are.
const PROGRAM_DIRS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// GRUB as it is installed, when a folder with a grub.cfg was found.
///
/// A grub.cfg that can't be read promises nothing.
pub(super) fn collect(sys: &Sys) -> Option<Grub> {
    let dir = DIRS
        .into_iter()
        .find(|dir| sys.exists(&format!("{dir}/grub.cfg")))?;
    let lossy = |name: &str| {
        let bytes = sys.read(&format!("{dir}/{name}")).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    let config = lossy("grub.cfg").unwrap_or_default();
    let custom_path = format!("{dir}/custom.cfg");
    let custom_cfg = custom_cfg(sys, &custom_path);
    // A custom.cfg that can't be read as text must be left alone, so it is no way for an entry.
    let custom_usable = custom_cfg.is_some() || !sys.exists(&custom_path);
    Some(Grub {
        dir: dir.to_owned(),
        honours_next_entry: honours_next_entry(&config),
        sources_custom_cfg: custom_usable && sources_custom_cfg(&config),
        grubenv: lossy("grubenv"),
        custom_cfg,
        can_regenerate: sys.exists("/etc/grub.d") && find_program(sys, &GENERATORS).is_some(),
        core_tools: core_tools(sys, dir),
    })
}

/// What a core can be made with. The modules of the distribution's packages come before those that
/// were installed: they are of the same version as its grub-mkimage.
fn core_tools(sys: &Sys, dir: &str) -> Option<CoreTools> {
    let installed = format!("{dir}/i386-pc");
    let has_all = |dir: &&str| {
        let modules = CORE_MODULES.map(|name| format!("{name}.mod"));
        let images = ["boot.img", "kernel.img", "moddep.lst"].map(str::to_owned);
        let mut files = modules.iter().chain(&images);
        files.all(|file| sys.exists(&format!("{dir}/{file}")))
    };
    let dirs = MODULE_DIRS.into_iter().chain([installed.as_str()]);
    Some(CoreTools {
        mkimage: find_program(sys, &IMAGE_MAKERS)?,
        dir: dirs.into_iter().find(has_all)?.to_owned(),
    })
}

fn custom_cfg(sys: &Sys, path: &str) -> Option<CustomCfg> {
    Some(CustomCfg {
        text: sys.read_text(path).ok()?,
        mode: sys.meta(path).ok()?.mode,
    })
}

/// The path of the first of these programs that is there.
fn find_program(sys: &Sys, names: &[&str]) -> Option<String> {
    names
        .iter()
        .flat_map(|name| PROGRAM_DIRS.map(|dir| format!("{dir}/{name}")))
        .find(|path| sys.exists(path))
}

/// Whether grub.cfg loads its environment and has the block that boots `next_entry` and clears it,
/// which grub-mkconfig's 00_header writes since GRUB 2.00.
///
/// Without the clearing, an armed machine would boot stage 2 again and again.
fn honours_next_entry(config: &str) -> bool {
    let lines: Vec<String> = statements(config)
        .skip_while(|line| first_word(line) != "load_env")
        .collect();
    lines
        .iter()
        .enumerate()
        .filter(|(_, line)| matches!(first_word(line), "if" | "elif"))
        .filter(|(_, line)| line.contains("$next_entry"))
        .any(|(index, _)| boots_and_clears(&lines[index + 1..]))
}

/// Whether the branch that starts there makes `next_entry` the default and clears it.
///
/// Ubuntu tests the variable once more before, for its fallback to a boot without initramfs.
fn boots_and_clears(lines: &[String]) -> bool {
    let end = lines
        .iter()
        .position(|line| matches!(first_word(line), "else" | "elif" | "fi"))
        .unwrap_or(lines.len());
    let branch = &lines[..end];
    let has = |wanted: &str| branch.iter().any(|line| line == wanted);
    let saves = branch
        .iter()
        .any(|line| first_word(line) == "save_env" && line.ends_with(" next_entry"));
    has("set default=$next_entry") && has("set next_entry=") && saves
}

/// Whether grub.cfg sources custom.cfg from its own folder, which 41_custom makes it do.
fn sources_custom_cfg(config: &str) -> bool {
    statements(config).any(|line| {
        line == "source $config_directory/custom.cfg" || line == "source $prefix/custom.cfg"
    })
}

/// Lines without comments, quotes, braces around names, and blanks around.
fn statements(config: &str) -> impl Iterator<Item = String> {
    config
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.replace(['"', '{', '}'], ""))
}

fn first_word(line: &str) -> &str {
    line.split([' ', ';']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN_HEADER: &str = r#"
### BEGIN /etc/grub.d/00_header ###
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="0"
fi
"#;

    const CUSTOM_BLOCK: &str = r#"
### BEGIN /etc/grub.d/41_custom ###
if [ -f  ${config_directory}/custom.cfg ]; then
  source ${config_directory}/custom.cfg
elif [ -z "${config_directory}" -a -f  $prefix/custom.cfg ]; then
  source $prefix/custom.cfg
fi
### END /etc/grub.d/41_custom ###
"#;

    #[test]
    fn generated_header_honours_next_entry() {
        assert!(honours_next_entry(DEBIAN_HEADER));
        let fedora = DEBIAN_HEADER.replace(
            "  load_env\n",
            "  load_env -f ${config_directory}/grubenv\n",
        );
        assert!(honours_next_entry(&fedora));
    }

    #[test]
    fn other_tests_before_it_do_not_matter() {
        let button = DEBIAN_HEADER.replace(
            "if [ \"${next_entry}\" ] ; then\n",
            "if cmostest 122:0 ; then\n   set default=\"1\"\nelif [ \"${next_entry}\" ] ; then\n",
        );
        assert!(honours_next_entry(&button));
        let fallback = r#"
if [ "${initrdfail}" = 1 ]; then
   set next_entry="${prev_entry}"
   set prev_entry=
   save_env prev_entry
   if [ "${next_entry}" ]; then
      set initrdfail=2
   fi
fi
"#;
        let start = DEBIAN_HEADER.find("if [ \"${next_entry}").unwrap();
        let (before, after) = DEBIAN_HEADER.split_at(start);
        assert!(honours_next_entry(&format!("{before}{fallback}{after}")));
    }

    #[test]
    fn a_header_that_lacks_any_part_does_not() {
        for part in [
            "  load_env\n",
            "if [ \"${next_entry}\" ] ; then\n",
            "   set default=\"${next_entry}\"\n",
            "   set next_entry=\n",
            "   save_env next_entry\n",
        ] {
            assert!(DEBIAN_HEADER.contains(part));
            assert!(
                !honours_next_entry(&DEBIAN_HEADER.replace(part, "")),
                "{part}"
            );
        }
        assert!(!honours_next_entry("set default=0\nmenuentry x {\n}\n"));
    }

    #[test]
    fn clearing_in_another_branch_does_not_count() {
        let moved = DEBIAN_HEADER
            .replace("   save_env next_entry\n", "")
            .replace("   set default=\"0\"\n", "   save_env next_entry\n");
        assert!(!honours_next_entry(&moved));
    }

    #[test]
    fn custom_block() {
        assert!(sources_custom_cfg(CUSTOM_BLOCK));
        assert!(!sources_custom_cfg(DEBIAN_HEADER));
        assert!(!sources_custom_cfg("# source $prefix/custom.cfg\n"));
    }

    #[test]
    fn a_custom_cfg_that_is_no_text_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let grub = dir.path().join("boot/grub2");
        std::fs::create_dir_all(&grub).unwrap();
        std::fs::write(grub.join("grub.cfg"), CUSTOM_BLOCK).unwrap();
        let sys = Sys::new(dir.path());
        assert!(collect(&sys).unwrap().sources_custom_cfg);
        std::fs::write(grub.join("custom.cfg"), b"menuentry 'caf\xe9' {\n}\n").unwrap();
        let found = collect(&sys).unwrap();
        assert_eq!(found.dir, "/boot/grub2");
        assert!(!found.sources_custom_cfg);
        assert_eq!(found.custom_cfg, None);
    }
}
