//! The kernel's command line: how it is split into arguments, and which of them are for a module.
//!
//! Stage 1 makes stage 2's command line from the running one; stage 2 passes the options for its
//! modules on, as modprobe would.

/// Splits at blanks as the kernel does: double quotes keep blanks together.
pub fn split(cmdline: &str) -> Vec<String> {
    let mut arguments = vec![String::new()];
    let mut quoted = false;
    for letter in cmdline.chars() {
        if letter == '"' {
            quoted = !quoted;
        }
        if letter.is_ascii_whitespace() && !quoted {
            arguments.push(String::new());
        } else if let Some(argument) = arguments.last_mut() {
            argument.push(letter);
        }
    }
    arguments.retain(|argument| !argument.is_empty());
    arguments
}

/// The options for a module, in the form that finit_module(2) takes: of `nvme_core.multipath=N`
/// that is `multipath=N`. In module names a hyphen equals an underscore.
///
/// The kernel itself only looks at the options of what is built in.
pub fn module_options(cmdline: &str, module: &str) -> String {
    let same = |name: &str| name.replace('-', "_") == module.replace('-', "_");
    let options: Vec<String> = split(cmdline)
        .into_iter()
        .take_while(|argument| argument != "--")
        .filter_map(|argument| {
            let (name, option) = argument.split_once('.')?;
            same(name).then(|| option.to_owned())
        })
        .collect();
    options.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_module_are_found_by_either_spelling() {
        let line = "ro usb-storage.quirks=152d:0578:u nvme_core.multipath=N usb_storage.delay_use=2 \
                    -- usb_storage.not=this";
        assert_eq!(
            module_options(line, "usb_storage"),
            "quirks=152d:0578:u delay_use=2"
        );
        assert_eq!(module_options(line, "nvme_core"), "multipath=N");
        assert_eq!(module_options(line, "nvme"), "");
    }

    #[test]
    fn quotes_keep_blanks_together() {
        assert_eq!(
            split("a=\"b c\"  d\n"),
            ["a=\"b c\"".to_owned(), "d".to_owned()]
        );
    }
}
