//! Reads grub.cfg: whether it boots `next_entry` once, what may get in the way of that, and how its
//! menu behaves. Pure; called by [`super::grub`].
//!
//! GRUB's script language is not run here. Statements are looked at with the branches that they are
//! in, which is enough for what grub-mkconfig and the distributions' scripts write.

use super::Menu;
use super::grub_default::default_entry;
use super::grub_script::{self, Statement, first_word};

/// A configuration of GRUB, statement by statement.
pub(super) struct GrubCfg {
    statements: Vec<Statement>,
}

impl GrubCfg {
    /// Takes a text apart.
    pub(super) fn parse(text: &str) -> GrubCfg {
        GrubCfg {
            statements: grub_script::parse(text),
        }
    }

    /// Whether it has a menu of its own, rather than only the place of another configuration, as those
    /// on the EFI system partition of Debian and of newer Fedoras.
    pub(super) fn has_menu(&self) -> bool {
        self.statements
            .iter()
            .any(|statement| matches!(statement.first_word(), "menuentry" | "submenu" | "blscfg"))
    }

    /// Whether it loads its environment and has the block that boots `next_entry` and clears it,
    /// which grub-mkconfig's 00_header writes since GRUB 2.00.
    ///
    /// Without the clearing, an armed machine would boot stage 2 again and again.
    pub(super) fn honours_next_entry(&self) -> bool {
        self.next_entry_branch().is_some()
    }

    /// Where the branch ends that boots `next_entry` and clears it.
    ///
    /// Ubuntu tests the variable once more before, for its fallback to a boot without initramfs.
    fn next_entry_branch(&self) -> Option<usize> {
        let loads = |statement: &Statement| statement.first_word() == "load_env";
        let loaded = self.statements.iter().position(loads)?;
        let heads = self.statements.iter().enumerate().skip(loaded);
        heads
            .filter(|(_, head)| matches!(head.first_word(), "if" | "elif"))
            .filter(|(_, head)| head.is_run() && head.text.contains("$next_entry"))
            .find_map(|(at, head)| self.boots_and_clears(at, head.within.len() + 1))
    }

    /// The end of the branch whose head is the statement `at`, if it makes `next_entry` the default and
    /// clears it, in no branch further in than `depth`.
    fn boots_and_clears(&self, at: usize, depth: usize) -> Option<usize> {
        let inside = |statement: &&Statement| statement.within.len() >= depth;
        let branch: Vec<&Statement> = self.statements[at + 1..]
            .iter()
            .take_while(inside)
            .collect();
        let always = |test: &dyn Fn(&str) -> bool| {
            let mut direct = branch.iter().filter(|other| other.within.len() == depth);
            direct.any(|other| test(&other.text))
        };
        let saves = |text: &str| first_word(text) == "save_env" && text.ends_with(" next_entry");
        let all = always(&|text| text == "set default=$next_entry")
            && always(&|text| text == "set next_entry=")
            && always(&saves);
        all.then_some(at + 1 + branch.len())
    }

    /// What always sets another default behind the place where `next_entry` is looked at.
    pub(super) fn later_default(&self) -> Option<&str> {
        let after = self.next_entry_branch()?;
        first_default(&self.statements[after..])
    }

    /// What always sets a default.
    pub(super) fn default(&self) -> Option<&str> {
        first_default(&self.statements)
    }

    /// Whether it sources custom.cfg from its own folder, which 41_custom makes it do.
    pub(super) fn sources_custom_cfg(&self) -> bool {
        self.statements.iter().any(|statement| {
            matches!(
                statement.text.as_str(),
                "source $config_directory/custom.cfg" | "source $prefix/custom.cfg"
            )
        })
    }

    /// How the menu behaves; `saved` is `saved_entry` of grubenv.
    pub(super) fn menu(&self, saved: &str) -> Menu {
        let run = || self.statements.iter().filter(|other| other.is_run());
        let within = |statement: &Statement, name: &str| {
            statement.within.iter().any(|head| head.contains(name))
        };
        let timeouts = |after_failure: bool| {
            run()
                // What is only for EFI machines is for those where GRUB can't write grubenv.
                .filter(|statement| !within(statement, "$grub_platform"))
                .filter(move |statement| within(statement, "$recordfail") == after_failure)
                .filter_map(|statement| statement.sets("timeout"))
        };
        let usual: Vec<&str> = timeouts(false).collect();
        let is_locked =
            run().any(|other| other.sets("superusers").is_some_and(|it| !it.is_empty()));
        Menu {
            waits: usual.is_empty() || usual.contains(&"-1"),
            waits_after_failure: timeouts(true).any(|timeout| timeout == "-1"),
            locked: is_locked && self.locks_default(saved),
        }
    }

    /// Whether a menu with a password wants it for the entry that starts by itself.
    fn locks_default(&self, saved: &str) -> bool {
        // Such entries say by themselves who may start them; as installed, everybody.
        let mut statements = self.statements.iter();
        if statements.any(|statement| statement.first_word() == "blscfg") {
            return false;
        }
        let way = default_entry(&self.statements, saved);
        let is_open = |entry: &&Statement| entry.text.contains("--unrestricted");
        way.is_empty() || !way.iter().all(is_open)
    }
}

fn first_default(statements: &[Statement]) -> Option<&str> {
    statements
        .iter()
        .find(|statement| statement.within.is_empty() && statement.sets("default").is_some())
        .map(|statement| statement.text.as_str())
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

    /// A menu as the distributions make it: after a failure, and else.
    fn timeouts(after_failure: i32, usual: i32) -> String {
        format!(
            "if [ \"${{recordfail}}\" = 1 ] ; then\n  set timeout={after_failure}\nelse\n  \
             if [ x$feature_timeout_style = xy ] ; then\n    set timeout_style=hidden\n    \
             set timeout={usual}\n  # Fallback\n  elif sleep --interruptible 0 ; then\n    \
             set timeout=0\n  fi\nfi\n\
             if [ $grub_platform = efi ]; then\n  set timeout=-1\nfi\n"
        )
    }

    fn honours(text: &str) -> bool {
        GrubCfg::parse(text).honours_next_entry()
    }

    fn menu(text: &str) -> (bool, bool, bool) {
        let menu = GrubCfg::parse(text).menu("");
        (menu.waits, menu.waits_after_failure, menu.locked)
    }

    #[test]
    fn generated_header_honours_next_entry() {
        assert!(honours(DEBIAN_HEADER));
        let fedora = DEBIAN_HEADER.replace(
            "  load_env\n",
            "  load_env -f ${config_directory}/grubenv\n",
        );
        assert!(honours(&fedora));
        // openSUSE, where the environment may be in an area of its own on btrfs.
        let block = "   save_env next_entry\n   if [ \"${env_block}\" ] ; then\n     \
                     save_env -f \"${env_block}\" next_entry\n   fi\n";
        assert!(honours(
            &DEBIAN_HEADER.replace("   save_env next_entry\n", block)
        ));
        let only_there = block.replace("   save_env next_entry\n", "");
        assert!(!honours(
            &DEBIAN_HEADER.replace("   save_env next_entry\n", &only_there)
        ));
    }

    #[test]
    fn other_tests_before_it_do_not_matter() {
        let button = DEBIAN_HEADER.replace(
            "if [ \"${next_entry}\" ] ; then\n",
            "if cmostest 122:0 ; then\n   set default=\"1\"\nelif [ \"${next_entry}\" ] ; then\n",
        );
        assert!(honours(&button));
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
        assert!(honours(&format!("{before}{fallback}{after}")));
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
            assert!(!honours(&DEBIAN_HEADER.replace(part, "")), "{part}");
        }
        assert!(!honours("set default=0\nmenuentry x {\n}\n"));
    }

    #[test]
    fn a_block_that_does_not_always_run_does_not_count() {
        let moved = DEBIAN_HEADER
            .replace("   save_env next_entry\n", "")
            .replace("   set default=\"0\"\n", "   save_env next_entry\n");
        assert!(!honours(&moved));
        let start = DEBIAN_HEADER.find("if [ \"${next_entry}").unwrap();
        let (before, after) = DEBIAN_HEADER.split_at(start);
        assert!(!honours(&format!("{before}function later {{\n{after}}}\n")));
    }

    #[test]
    fn a_default_that_is_set_behind_it_is_seen() {
        let later = |text: &str| {
            let cfg = GrubCfg::parse(&format!("{DEBIAN_HEADER}{text}"));
            cfg.later_default().map(str::to_owned)
        };
        assert_eq!(later("set default=2\n").as_deref(), Some("set default=2"));
        assert_eq!(later("default=\"a>b\"").as_deref(), Some("default=a>b"));
        assert_eq!(later("if [ x ]; then set default=2; fi\n"), None);
        assert_eq!(later("menuentry x {\n  set default=2\n}\n"), None);
        assert_eq!(
            later("set default_button=1; echo 'a; set default=1'\n"),
            None
        );
        assert_eq!(
            GrubCfg::parse("set default=\"0\"\n").default(),
            Some("set default=0")
        );
    }

    #[test]
    fn custom_block() {
        let sources = |text: &str| GrubCfg::parse(text).sources_custom_cfg();
        assert!(sources(CUSTOM_BLOCK));
        assert!(!sources(DEBIAN_HEADER));
        assert!(!sources("# source $prefix/custom.cfg\n"));
    }

    #[test]
    fn a_menu_that_waits() {
        assert_eq!(menu(&timeouts(30, 0)), (false, false, false));
        assert_eq!(menu(&timeouts(-1, 5)), (false, true, false));
        assert_eq!(menu(&timeouts(30, -1)), (true, false, false));
        assert_eq!(
            menu("menuentry x {\n  set timeout=5\n}\n"),
            (true, false, false)
        );
        assert_eq!(menu("timeout=5\n"), (false, false, false));
    }

    #[test]
    fn a_menu_that_wants_a_password() {
        let locked = |entries: &str| {
            let text =
                format!("set timeout=5\nset superusers=\"root\"\nexport superusers\n{entries}");
            menu(&text).2
        };
        assert!(locked(
            "menuentry 'Debian' --class gnu {\n  linux /vmlinuz\n}\n"
        ));
        assert!(!locked(
            "menuentry 'CentOS' --unrestricted {\n}\nmenuentry 'x' {\n}\n"
        ));
        // One that nobody chooses does not help.
        let open = "menuentry 'memtest' --unrestricted {\n}\n";
        let shut = "menuentry 'Debian' {\n}\n";
        assert!(locked(&format!("{shut}{open}")));
        assert!(locked(&format!("set default=1\n{open}{shut}")));
        assert!(!locked(&format!("set default=1\n{shut}{open}")));
        let submenu = format!("submenu 'more' {{\n{open}}}\n");
        assert!(locked(&format!("set default='0>0'\n{submenu}")));
        let submenu = submenu.replace("'more'", "'more' --unrestricted");
        assert!(!locked(&format!("set default='0>0'\n{submenu}")));
        assert!(!locked("insmod blscfg\nblscfg\n"));
        assert!(!menu("set timeout=5\nmenuentry x {\n}\n").2);
    }

    #[test]
    fn only_a_menu_is_a_configuration_of_its_own() {
        let has_menu = |text: &str| GrubCfg::parse(text).has_menu();
        assert!(has_menu("submenu 'x' {\n}\n"));
        assert!(has_menu("if true; then blscfg; fi\n"));
        assert!(!has_menu(
            "search.fs_uuid 1-2 root hd0,gpt2\nset prefix=($root)'/boot/grub'\n\
             configfile $prefix/grub.cfg\n"
        ));
    }
}
