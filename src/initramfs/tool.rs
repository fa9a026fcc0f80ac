//! The tools of distributions that can build the initramfs around stage 2, and what they are given:
//! a boot hook, and nothing that is secret. Called by the checks, the planner and the engine.
//!
//! What a tool makes gets an archive of ours before it, with all of stage 2 in
//! [`crate::sys::own_root::PATH`]:
//! the kernel unpacks both (driver-api/early-userspace/buffer-format). Ours is the first one, since
//! not every kernel finds the end of what other compressions than gzip have packed.

/// Who builds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// initramfs-tools of Debian and its relatives.
    InitramfsTools,
    /// dracut.
    Dracut,
}

/// Folder for the tool's work, which it has to itself.
pub const FOLDER: &str = "/var/lib/balena-migrate.initramfs";

/// The archive of ours in it.
pub const OURS: &str = "stage2.img";

/// What the tool makes in it.
pub const THEIRS: &str = "tool.img";

/// A file that the tool is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hook {
    /// Path in the folder.
    pub path: &'static str,
    /// Its content, from `initramfs/`.
    pub text: &'static str,
}

/// A program to run, with the folder's place on this machine in its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// A variable of its environment.
    pub variable: (&'static str, String),
}

impl Tool {
    /// As INITRAMFS names it.
    pub fn name(self) -> &'static str {
        match self {
            Tool::InitramfsTools => "initramfs-tools",
            Tool::Dracut => "dracut",
        }
    }

    /// What to install to have it.
    pub fn package(self) -> &'static str {
        match self {
            Tool::InitramfsTools => "initramfs-tools",
            Tool::Dracut => "dracut (on Debian and Ubuntu dracut-core, beside initramfs-tools)",
        }
    }

    /// What of the system is copied into the folder under that name, so that hooks of ours can be put
    /// beside those that are there.
    pub fn copied(self) -> (&'static str, &'static str) {
        match self {
            Tool::InitramfsTools => ("/etc/initramfs-tools", "conf"),
            Tool::Dracut => ("/usr/lib/dracut", "base"),
        }
    }

    /// The hooks, in folders that may have to be made.
    pub fn hooks(self) -> &'static [Hook] {
        match self {
            Tool::InitramfsTools => &[Hook {
                path: "conf/scripts/local-bottom/balena-migrate",
                text: include_str!("../../initramfs/initramfs-tools/local-bottom"),
            }],
            Tool::Dracut => &[
                Hook {
                    path: "base/modules.d/95balena-migrate/module-setup.sh",
                    text: include_str!("../../initramfs/dracut/module-setup.sh"),
                },
                Hook {
                    path: "base/modules.d/95balena-migrate/pre-pivot.sh",
                    text: include_str!("../../initramfs/dracut/pre-pivot.sh"),
                },
            ],
        }
    }

    /// What makes [`THEIRS`] in `folder` for the kernel of that release.
    pub fn command(self, program: &str, folder: &str, release: &str) -> Command {
        let theirs = format!("{folder}/{THEIRS}");
        let (words, variable) = match self {
            Tool::InitramfsTools => {
                let conf = format!("{folder}/conf");
                let words = vec!["-d".to_owned(), conf, "-o".to_owned(), theirs];
                (words, ("TMPDIR", folder.to_owned()))
            }
            Tool::Dracut => {
                let options = ["--force", "--add", "balena-migrate", "--tmpdir", folder];
                let mut words = options.map(str::to_owned).to_vec();
                // Beside the folder's own the system's log would get lines of ours.
                words.extend(["--logfile".to_owned(), format!("{folder}/log"), theirs]);
                (words, ("dracutbasedir", format!("{folder}/base")))
            }
        };
        let program = [program.to_owned()].into_iter();
        Command {
            argv: program.chain(words).chain([release.to_owned()]).collect(),
            variable,
        }
    }

    /// Arguments for the kernel that let it end in a restart where its initramfs would ask somebody
    /// at the console.
    pub fn kernel_arguments(self) -> &'static [&'static str] {
        match self {
            Tool::InitramfsTools => &[],
            Tool::Dracut => &["rd.shell=0", "rd.emergency=reboot"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::own_root;

    #[test]
    fn the_hooks_start_what_the_archive_holds() {
        for tool in [Tool::InitramfsTools, Tool::Dracut] {
            let names_it = |hook: &Hook| hook.text.contains(&format!("stage2={}", own_root::PATH));
            assert!(tool.hooks().iter().any(names_it), "{tool:?}");
        }
    }

    #[test]
    fn the_tools_write_into_the_folder_only() {
        for tool in [Tool::InitramfsTools, Tool::Dracut] {
            let command = tool.command("/usr/sbin/tool", "/work", "6.1");
            assert_eq!(command.argv[0], "/usr/sbin/tool");
            assert_eq!(command.argv.last().unwrap(), "6.1");
            assert!(command.argv.contains(&"/work/tool.img".to_owned()));
            let mut paths = command.argv[1..]
                .iter()
                .filter(|word| word.starts_with('/'));
            assert!(paths.all(|path| path.starts_with("/work")));
            assert!(command.variable.1.starts_with("/work"));
        }
    }
}
