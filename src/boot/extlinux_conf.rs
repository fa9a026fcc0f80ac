//! extlinux.conf as u-boot reads it: labels, each with a kernel and what goes with it, and the one to start.
//!
//! <https://docs.u-boot.org/en/latest/develop/distro.html>, and doc/README.pxe of u-boot.

use super::config_txt::{BEGIN, END, OUT_OF_THE_WAY};

/// Our label.
const LABEL: &str = "balena-migrate";

/// Lines of a label that are about the device tree, which belongs to the kernel.
const TREE: &[&str] = &[
    "fdt",
    "fdtdir",
    "fdtoverlays",
    "devicetree",
    "devicetreedir",
    "devicetree-overlay",
];

/// What may be started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Label<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// The kernel, by its name on the file system.
    pub(super) kernel: &'a str,
    /// The kernel's arguments.
    pub(super) arguments: &'a str,
    /// The lines about the device tree, as they are.
    tree: Vec<&'a str>,
}

/// The labels of a text.
pub(super) fn labels(text: &str) -> Vec<Label<'_>> {
    let mut labels: Vec<Label> = Vec::new();
    for line in text.lines() {
        let (word, value) = statement(line);
        if word == "label" {
            labels.push(Label {
                name: value,
                ..Label::default()
            });
        }
        let Some(label) = labels.last_mut() else {
            continue;
        };
        match word.as_str() {
            "linux" | "kernel" => label.kernel = value,
            "append" => label.arguments = value,
            word if TREE.contains(&word) => label.tree.push(line.trim()),
            _ => {}
        }
    }
    labels
}

/// Whether a text has others in it that are not here.
pub(super) fn includes(text: &str) -> bool {
    let mut words = text.lines().map(statement);
    words.any(|(word, value)| word == "include" || word == "menu" && value.starts_with("include"))
}

/// A text that starts the kernel of `label` with an initramfs and arguments of ours.
pub(super) fn armed(text: &str, label: &Label, initramfs: &str, arguments: &str) -> String {
    let mut armed = format!("{BEGIN}\ndefault {LABEL}\n{END}\n");
    for line in text.split_inclusive('\n') {
        if chooses(line) {
            armed.push_str(OUT_OF_THE_WAY);
        }
        armed.push_str(line);
    }
    if !armed.ends_with('\n') {
        armed.push('\n');
    }
    let mut lines = vec![
        BEGIN.to_owned(),
        format!("label {LABEL}"),
        format!("\tlinux {}", label.kernel),
        format!("\tinitrd {initramfs}"),
    ];
    lines.extend(label.tree.iter().map(|line| format!("\t{line}")));
    lines.push(format!("\tappend {arguments}"));
    lines.push(END.to_owned());
    armed.extend(lines.iter().map(|line| format!("{line}\n")));
    armed
}

/// Whether a line says which label to start.
fn chooses(line: &str) -> bool {
    let (word, value) = statement(line);
    ["default", "ontimeout"].contains(&word.as_str()) || word == "menu" && value == "default"
}

/// The first word of a line, in small letters, and the rest. Comments have none.
fn statement(line: &str) -> (String, &str) {
    let line = line.trim();
    let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    match word.starts_with('#') {
        true => (String::new(), ""),
        false => (word.to_ascii_lowercase(), rest.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "## /boot/extlinux/extlinux.conf\n\ndefault l0\nmenu title U-Boot menu\nprompt 0\n\
                          timeout 50\n\n\nlabel l0\n\tmenu label Debian\n\tlinux /boot/vmlinuz-1\n\
                          \tinitrd /boot/initrd.img-1\n\tfdtdir /usr/lib/linux-image-1/\n\t\n\
                          \tappend root=/dev/mmcblk1p1 ro quiet\n\nlabel l0r\n\tlinux /boot/vmlinuz-1\n\
                          \tappend root=/dev/mmcblk1p1 ro single";

    #[test]
    fn labels_with_what_belongs_to_them() {
        let labels = labels(DEBIAN);
        let wanted = Label {
            name: "l0",
            kernel: "/boot/vmlinuz-1",
            arguments: "root=/dev/mmcblk1p1 ro quiet",
            tree: vec!["fdtdir /usr/lib/linux-image-1/"],
        };
        assert_eq!(labels[0], wanted);
        assert_eq!(labels[1].name, "l0r");
        assert_eq!(labels[1].tree, [""; 0]);
    }

    #[test]
    fn our_label_is_chosen_and_no_other() {
        let text = "DEFAULT a\nontimeout b\nlabel a\n menu default\n# default c\n kernel /k\n";
        let armed = armed(text, &labels(text)[0], "/i", "panic=30");
        assert_eq!(
            armed,
            format!(
                "{BEGIN}\ndefault {LABEL}\n{END}\n{OUT_OF_THE_WAY}DEFAULT a\n{OUT_OF_THE_WAY}ontimeout b\n\
                 label a\n{OUT_OF_THE_WAY} menu default\n# default c\n kernel /k\n{BEGIN}\nlabel {LABEL}\n\
                 \tlinux /k\n\tinitrd /i\n\tappend panic=30\n{END}\n"
            )
        );
    }

    #[test]
    fn other_files_are_seen() {
        assert!(!includes(DEBIAN));
        assert!(includes("menu include other.conf\n"));
        assert!(includes(" include other.conf"));
        assert!(!includes("# include other.conf"));
    }
}
